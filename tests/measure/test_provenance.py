"""What follows from the events of a loop: tables of events, and what they must lead to.

One line is one event: its name, a code for each gradient, what it is about, and behind the arrow what must follow.
Codes say what has become of a gradient since the line before: Absent, Same, changed Once, Changed, New. Columns are
digits. What follows is which columns are measured before clipping or looked at; of a step, what is odd about it.
Without an arrow nothing follows; a step of which nothing is odd is ``-> as usual``. ``anew`` and ``outdated`` tell
what is known then, where a line says it: columns of whose last clip call nothing is left, and those that were
clipped after they were measured. So do ``gone`` and ``changed``: of what no step has used, the columns that are gone
when a pass begins, and others that are not as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.measure import events
from gradwatch.measure.provenance import Consumed, Provenance, Seen

CASES: dict[str, str] = {}


def case(name: str, table: str) -> None:
    assert name not in CASES
    CASES[name] = table


# Loops that are in order

case(
    "zeroed to none before each pass",
    """
    begin AA
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    begin AA
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    """,
)
case(
    "zeroed in place after each step",
    """
    begin AA
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    begin OO
    end   OO writes 01         -> measures 01
    step  SS                   -> as usual
    left
    """,
)
case(
    "zeroed in a way that torch does not count",
    """
    end    NN writes 01        -> measures 01
    step   SS                  -> as usual
    left
    begin  SS                  -> looks at 01
    zeroed 01
    end    OO writes 01        -> measures 01
    step   SS                  -> as usual
    left
    begin  SO                  -> looks at 0
    zeroed 0
    step   SS                  -> unwritten 01, before is after 01
    """,
)
case(
    "what has no hook was written where it has changed since the pass began",
    """
    begin AAA
    end   NNS writes 0 compares 12 -> measures 01, written 01
    step  SSN                  -> unwritten 2, before is after 2
    left
    begin AAA
    end   NOC writes 0 compares 12 -> measures 012, written 012
    """,
)
case(
    "accumulated over three passes",
    """
    begin AA
    end   NN writes 01         -> measures 01
    begin SS
    end   OO writes 01         -> measures 01
    begin SS
    end   OO writes 01         -> measures 01
    step  SS                   -> as usual
    """,
)
case(
    "a fused optimizer changes gradients in its step",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    begin OO
    end   OO writes 01         -> measures 01
    step  SS                   -> as usual
    """,
)
case(
    "the order in which a pass writes does not matter",
    """
    end   NN writes 10         -> measures 01
    step  SS                   -> as usual
    """,
)
case(
    "averaged over ranks within the pass",
    """
    begin SS
    end   CC writes 01         -> measures 01
    step  SS                   -> as usual
    left
    begin OO
    end   CC writes 01         -> measures 01
    step  SS                   -> as usual
    """,
)

# Passes that write a part

case(
    "the other part is missing",
    """
    begin AA
    end   NA writes 0          -> measures 0
    step  SA                   -> missing 1, nothing before 1, unwritten 1, before is after 1
    """,
)
case(
    "two passes write a part each, and what the first has written is measured again with the second",
    """
    begin AA
    end   NA writes 0          -> measures 0
    begin SA
    end   SN writes 1          -> measures 01
    step  SS                   -> as usual
    """,
)
case(
    "what the first has written is zeroed before the second",
    """
    end   NA writes 0          -> measures 0
    begin AA
    end   AN writes 1          -> measures 1
    step  AS                   -> missing 0, nothing before 0, before is after 0
    """,
)
case(
    "zeroed after it was measured",
    """
    end   NN writes 01         -> measures 01
    step  AS                   -> missing 0
    """,
)
case(
    "another loop's gradient is there from the start",
    """
    begin NN
    end   ON writes 0          -> measures 0
    step  SS                   -> unwritten 1, before is after 1
    """,
)
case(
    "clipped in part between two passes: what was clipped stays as it was measured",
    """
    end      NN writes 01      -> measures 01
    clipping SS 0
    clipped  OS 0
    end      SO writes 1       -> measures 1
    step     SS                -> as usual
    """,
)
case(
    "clipped and gone before another pass",
    """
    end      NN writes 01      -> measures 01
    clipping SS 0
    clipped  OS 0
    begin    AS
    end      AO writes 1       -> measures 1
    step     AS                -> missing 0, nothing before 0, before is after 0
    """,
)

# What no step has used, when the next pass begins

case(
    "a part is gone, another was changed, or perhaps zeroed",
    """
    end   NNNN writes 0123     -> measures 0123
    begin AOSC                 -> gone 0, changed 13
    end   NOOO writes 0123     -> measures 0123
    begin SSSS                 -> gone, changed
    """,
)
case(
    "what a step has used, or one of another optimizer, may go",
    """
    end       NNN writes 012 loss 1 -> measures 012
    shared    0
    elsewhere 1
    begin     AAA              -> gone 2, changed
    end       NNN writes 012 loss 1 -> measures 012
    step      SSS              -> as usual
    left
    begin     AOO              -> gone, changed
    """,
)

# Clip calls

case(
    "a clip call after the pass",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    left
    begin    AA
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    """,
)
case(
    "twice: the norm before is from before the first",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    """,
)
case(
    "each part by itself",
    """
    end      NN writes 01      -> measures 01
    clipping SS 0
    clipped  OS 0
    clipping SS 1
    clipped  SO 1
    step     SS                -> as usual
    """,
)
case(
    "of gradients that nothing has measured yet",
    """
    clipping NN 0              -> measures 0
    clipped  OS 0
    clipping SS 01             -> measures 1
    clipped  OO 01
    step     SS                -> unwritten 01
    """,
)
case(
    "before the pass",
    """
    begin    AA
    clipping AA 01
    clipped  AA 01
    end      NN writes 01      -> measures 01
    step     SS                -> missed 01
    left
    begin    AA
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    """,
)
case(
    "after the step: it is too late, and misses the next",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    clipping SS 01             -> measures 01
    clipped  OO 01
    begin    AA
    end      NN writes 01      -> measures 01
    step     SS                -> missed 01
    """,
)
case(
    "before a pass that writes a part of what it was given",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    begin    SS
    end      OS writes 0       -> measures 0
    step     SS                -> missed 0, between 0
    """,
)
case(
    "for each of two passes: it comes between",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    begin    SS
    end      OO writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> between 01
    left
    begin    AA
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    """,
)
case(
    "for each of three passes: it came between the first two",
    """
    end      NN writes 01      -> measures 01
    clipping SS 0
    clipped  OS 0
    begin    SS
    end      OO writes 01      -> measures 01
    begin    SS
    end      OO writes 01      -> measures 01
    step     SS                -> missed 0, between 0
    """,
)
case(
    "for a step that was left out and whose gradients were zeroed",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    begin    AO                -> looks at 1, anew
    end      NO writes 01      -> measures 01, anew 01
    clipping SS 01
    clipped  OO 01             -> anew
    step     SS                -> as usual
    """,
)
case(
    "for a step that was left out and whose gradients were zeroed in place: of these the norm before is known anew",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01             -> outdated 01
    begin    OO                -> looks at 01, changed 01
    zeroed   01                -> outdated
    end      OS writes 0       -> measures 01
    """,
)
case(
    "of gradients that were zeroed before it: the next pass tells what they are",
    """
    end      NN writes 01      -> measures 01
    clipping OO 01
    clipped  OO 01             -> outdated 01
    begin    SS                -> looks at 01
    zeroed   01                -> outdated
    end      OS writes 0       -> measures 01
    """,
)
case(
    "between two passes of which the second adds to it: something is left of it",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    end      ON writes 01      -> measures 01, anew 1
    """,
)
case(
    "after a step of another optimizer that holds the same: it has come to something",
    """
    end       NN writes 01     -> measures 01
    clipping  SS 01
    clipped   OO 01
    elsewhere 0
    begin     AA
    end       NN writes 01     -> measures 01, anew 1
    end       NN writes 01     -> measures 01, anew 01
    """,
)
case(
    "of a gradient that was changed by hand: no fault is claimed on a guess, and the call is a part of the step",
    """
    end      NN writes 01      -> measures 01
    clipping OS 01
    clipped  OO 01
    begin    SS                -> looks at 0
    end      OO writes 01      -> measures 01, anew
    step     SS                -> missed 01, between 1
    """,
)
case(
    "others change while it is under way: these are not the ones that were followed",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    clipping SS 0              -> measures 0
    clipped  OO 0
    step     SS                -> unwritten 01, stale 0, before is after 1
    """,
)

# Whose it is

case(
    "never zeroed",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    begin SS                   -> looks at 01
    end   OO writes 01         -> measures 01
    step  SS                   -> leaked 01
    left
    begin SS                   -> looks at 01
    end   OS writes 0          -> measures 0
    step  SS                   -> leaked 01, unwritten 1, stale 1, before is after 1
    left
    begin AA
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    """,
)
case(
    "never zeroed, and accumulated: what was leaked stays so",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    end   OO writes 01         -> measures 01
    end   OO writes 01         -> measures 01
    step  SS                   -> leaked 01
    """,
)
case(
    "another's loss has stayed in it",
    """
    end    NN writes 01 loss 1 -> measures 01
    shared 01
    begin  SS                  -> looks at 01
    end    OO writes 01 loss 2 -> measures 01
    step   SS                  -> leaked 01
    """,
)
case(
    "another's loss was zeroed, in part",
    """
    end    NN writes 01 loss 1 -> measures 01
    shared 01
    begin  OS                  -> looks at 1
    end    OO writes 01 loss 2 -> measures 01
    step   SS                  -> leaked 1
    """,
)
case(
    "accumulated over another's steps on the same loss, which is its own",
    """
    end    NN writes 01 loss 1 -> measures 01
    shared 01
    begin  SS                  -> looks at 01
    end    OO writes 01 loss 1 -> measures 01
    shared 01
    begin  SS                  -> looks at 01
    end    OO writes 01 loss 1 -> measures 01
    step   SS                  -> as usual
    """,
)
case(
    "another loss after those that were accumulated",
    """
    end    NN writes 01 loss 1 -> measures 01
    shared 01
    end    OO writes 01 loss 1 -> measures 01
    shared 01
    end    OO writes 01 loss 2 -> measures 01
    step   SS                  -> leaked 01
    """,
)
case(
    "a loss of both that nobody has used yet",
    """
    end    NN writes 01 loss 1 -> measures 01
    begin  SS
    end    OO writes 01 loss 2 -> measures 01
    step   SS                  -> as usual
    """,
)
case(
    "another's step used one that was clipped since, which makes it no newer",
    """
    end      NN writes 01 loss 1 -> measures 01
    shared   01
    clipping SS 01
    clipped  OO 01
    end      OO writes 01 loss 2 -> measures 01
    step     SS                -> leaked 01, missed 01, between 01
    """,
)
case(
    "a gradient that no pass has ever written was not used",
    """
    step  NN                   -> unwritten 01, before is after 01
    left
    begin SS
    end   OO writes 01         -> measures 01
    step  SS                   -> as usual
    """,
)
case(
    "changed by hand after it was used: it counts as begun anew",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    begin OS                   -> looks at 1
    end   OO writes 01         -> measures 01
    step  SS                   -> leaked 1
    """,
)
case(
    "changed while a pass of others ran",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    end   OO writes 0          -> measures 0
    end   OO writes 01         -> measures 01
    step  SS                   -> leaked 0
    """,
)
case(
    "stale",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    step  SS                   -> unwritten 01, stale 01, before is after 01
    left
    step  SO                   -> unwritten 01, stale 0, before is after 01
    left
    step  AN                   -> missing 0, nothing before 0, unwritten 01, before is after 01
    """,
)
case(
    "as the step left it, though others' passes began and ended",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    begin SS                   -> looks at 01
    begin SS                   -> looks at 01
    step  SS                   -> unwritten 01, stale 01, before is after 01
    """,
)
case(
    "a clip call makes an old gradient no newer",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    clipping SS 01             -> measures 01
    clipped  OO 01
    step     SS                -> unwritten 01, stale 01
    """,
)
case(
    "zeroed, which is not stale whatever came of it",
    """
    end    NN writes 01        -> measures 01
    step   SS                  -> as usual
    left
    begin  SS                  -> looks at 01
    zeroed 0
    step   SS                  -> unwritten 01, stale 1, before is after 01
    """,
)
case(
    "written anew while another was not: what it leaves of the first is gone",
    """
    end   NN writes 01         -> measures 01
    step  SS                   -> as usual
    left
    end   SN writes 1          -> measures 1
    step  SS                   -> unwritten 0, stale 0, before is after 0
    """,
)
case(
    "set by hand",
    """
    step  NN                   -> unwritten 01, before is after 01
    left
    step  NN                   -> unwritten 01, before is after 01
    """,
)
case(
    "some of what was not written requires no gradient",
    """
    end   NA writes 0          -> measures 0
    step  SA frozen 1          -> missing 1, nothing before 1, unwritten 1, frozen 1, before is after 1
    """,
)

# A GradScaler

case(
    "unscaled before the clip call",
    """
    end      NN writes 01      -> measures 01
    unscale  OO                -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    """,
)
case(
    "unscaled after the clip call: the norms before are divided instead",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01             -> outdated 01
    unscale  SS                -> outdated 01
    step     SS                -> as usual
    """,
)
case(
    "unscaled after a part was clipped",
    """
    end      NN writes 01      -> measures 01
    clipping SS 1
    clipped  SO 1              -> outdated 1
    unscale  OO                -> measures 0, outdated 1
    step     SS                -> as usual
    """,
)
case(
    "unscaled where a gradient is missing",
    """
    end      NA writes 0       -> measures 0
    unscale  OA                -> measures 0
    step     SA                -> missing 1, nothing before 1, unwritten 1, before is after 1
    """,
)
case(
    "a gradient that was set by hand before it was unscaled is not stale",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    unscale  NS                -> measures 01
    step     SS                -> unwritten 01, stale 1
    """,
)
case(
    "left out by the scaler: what was measured is told, and nothing was consumed",
    """
    end      NN writes 01      -> measures 01
    unscale  OO                -> measures 01
    skip     SS                -> as usual
    begin    AA
    end      NA writes 0       -> measures 0
    unscale  OA                -> measures 0
    skip     SA                -> missing 1, nothing before 1
    begin    AA
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    """,
)
case(
    "left out, and accumulated on: no step has used it",
    """
    end      NN writes 01      -> measures 01
    skip     SS                -> as usual
    begin    SS
    end      OO writes 01      -> measures 01
    step     SS                -> as usual
    """,
)
case(
    "left out after it was zeroed",
    """
    end      NN writes 01      -> measures 01
    skip     AA                -> missing 01
    """,
)
case(
    "clipped and left out: the next step's clip call is its own",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01             -> outdated 01
    skip     SS                -> as usual
    begin    AA
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    """,
)

# Steps inside a pass, and steps that are not measured

case(
    "a step inside a pass trusts what was measured within it alone",
    """
    begin    AA
    clipping NA 0 in pass      -> measures 0
    clipped  OA 0
    step     SN in pass        -> unwritten 01, before is after 1
    left
    end      AA writes 01 unmeasured
    """,
)
case(
    "a step inside a pass does not trust what was measured before it",
    """
    end      NN writes 01      -> measures 01
    step     CC in pass        -> before is after 01
    """,
)
case(
    "what was measured within a pass that has ended holds in another that changes nothing of it",
    """
    clipping NN 01 in pass     -> measures 01
    clipped  OO 01
    begin    SS                -> looks at 01
    step     SO in pass        -> unwritten 01, before is after 1
    """,
)
case(
    "a step inside a pass of something else trusts what was measured and clipped before it",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    begin    SS
    step     SS in pass        -> as usual
    """,
)
case(
    "clipped within a pass that has added to what earlier ones left: measured anew, each once",
    """
    end      NN writes 01      -> measures 01
    begin    SS
    clipping OS 0 in pass      -> measures 0
    clipped  OS 0
    clipping SO 01 in pass     -> measures 1
    clipped  OO 01
    step     SS in pass        -> as usual
    """,
)
case(
    "what a pass has written before another gradient was clipped inside it",
    """
    end      NN writes 01      -> measures 01
    begin    SS
    clipping OO 0 in pass      -> measures 0
    clipped  OS 0
    step     SS in pass        -> before is after 1
    """,
)
case(
    "what the loop puts there by itself after a step within a pass is measured when it is clipped",
    """
    begin    AA
    step     NN in pass        -> unwritten 01, before is after 01
    left
    clipping NN 01             -> measures 01
    clipped  OO 01
    step     SS                -> unwritten 01
    """,
)
case(
    "the pass goes on after the step inside it: what it then has written was not used by it",
    """
    begin    AA
    step     NN in pass        -> unwritten 01, before is after 01
    left
    end      SO writes 01 unmeasured
    step     SS                -> before is after 01
    """,
)
case(
    "every third step is measured: what was written since the last of those is written",
    """
    end      NN writes 01 unmeasured
    left not due
    begin    AA
    end      NA writes 0 unmeasured
    left not due
    begin    AA
    end      NA writes 0       -> measures 0
    step     SA                -> missing 1, nothing before 1, before is after 1
    left
    begin    AA
    left not due
    left not due
    end      NA writes 0       -> measures 0
    step     SA                -> missing 1, nothing before 1, unwritten 1, before is after 1
    """,
)
case(
    "a clip call for a step that is not measured measures nothing",
    """
    end      NN writes 01 unmeasured
    clipping SS 01 not due
    clipped  OO 01
    unscale  OO not due
    left not due
    begin    AA
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01             -> outdated 01
    step     SS                -> as usual
    """,
)
case(
    "a step that is not measured uses its gradients all the same",
    """
    end      NN writes 01 unmeasured
    left not due
    begin    SS                -> looks at 01
    end      OO writes 01      -> measures 01
    step     SS                -> leaked 01
    """,
)
case(
    "what was measured for a step that was left out is not that of the next",
    """
    end      NN writes 01      -> measures 01
    skip     SS not due        -> as usual
    step     SS                -> before is after 01
    """,
)

# What is over is over, and what is not is not

case(
    "accumulated anew after a step: the step has used nothing of it",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    begin    AA
    end      NN writes 01      -> measures 01
    end      OO writes 01      -> measures 01
    step     SS                -> as usual
    """,
)
case(
    "accumulated anew after another's step",
    """
    end      NN writes 01 loss 1 -> measures 01
    shared   01
    begin    AA
    end      NN writes 01 loss 2 -> measures 01
    end      OO writes 01 loss 3 -> measures 01
    step     SS                -> as usual
    """,
)
case(
    "accumulated anew after a clip call for a step that was left out",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    begin    AA
    end      NN writes 01      -> measures 01
    end      OO writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    """,
)
case(
    "written anew after a clip call came between",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01             -> outdated 01
    end      OO writes 01      -> measures 01, outdated
    begin    AA
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    """,
)
case(
    "clipped, and never zeroed: it has leaked, and no clip call came between",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    left
    end      OO writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    step     SS                -> leaked 01
    """,
)
case(
    "a clip call came between for the step before",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    end      OO writes 01      -> measures 01
    step     SS                -> missed 01, between 01
    left
    end      OO writes 01      -> measures 01
    step     SS                -> leaked 01
    left
    step     SS                -> leaked 01, unwritten 01, stale 01, before is after 01
    """,
)
case(
    "a clip call missed what the step before consumed",
    """
    clipping AA 01
    clipped  AA 01
    end      NN writes 01      -> measures 01
    step     SS                -> missed 01
    left
    step     SS                -> unwritten 01, stale 01, before is after 01
    """,
)
case(
    "changed by hand right before the step, which uses it as it is",
    """
    end      NN writes 01      -> measures 01
    step     CN                -> as usual
    left
    begin    SS                -> looks at 01
    end      OO writes 01      -> measures 01
    step     SS                -> leaked 01
    """,
)
case(
    "changed by hand before a step that fails: it is not as the step before has left it",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    step     OS                -> unwritten 01, stale 1, before is after 01
    step     SS                -> unwritten 01, stale 1, before is after 01
    begin    SS                -> looks at 1
    """,
)
case(
    "changed while a pass of others ran, it has neither leaked nor is it stale",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    end      OO writes 1       -> measures 1
    step     SS                -> leaked 1, unwritten 0, before is after 0
    """,
)
case(
    "a pass that writes others makes nothing anew",
    """
    end      NN writes 01      -> measures 01
    clipping SS 01
    clipped  OO 01
    end      SN writes 1       -> measures 1, anew 1
    """,
)
case(
    "a clip call of a gradient that was replaced by hand is followed on from there",
    """
    end      NN writes 01      -> measures 01
    clipping SS 0
    clipped  OS 0
    clipping NS 0
    clipped  OS 0
    end      OO writes 01      -> measures 01, anew 1
    clipping SS 01
    clipped  OO 01
    step     SS                -> as usual
    """,
)
case(
    "measured within a pass that has ended since: a step within another pass does not trust it where that wrote",
    """
    clipping NN 0 in pass      -> measures 0
    clipped  OS 0
    end      SS writes 01      -> measures 1
    step     OS in pass        -> before is after 0
    """,
)
case(
    "clipped in a hook of the pass that writes it: as if it had been clipped behind the pass",
    """
    begin    AA
    clipping NA 0 in pass      -> measures 0
    clipped  OA 0
    end      SN writes 01      -> measures 1
    step     SS                -> as usual
    """,
)
case(
    "clipped in a hook, and added to within the same pass: that part was not clipped",
    """
    begin    AA
    clipping NA 0 in pass      -> measures 0
    clipped  OA 0
    end      ON writes 01      -> measures 01
    step     SS                -> missed 0
    """,
)

# Other parameters

case(
    "one more parameter, and the others in another order",
    """
    end      NN writes 01      -> measures 01
    clipping SS 1
    clipped  SO 1              -> outdated 1
    columns  1 new 0           -> outdated 0
    step     SNS               -> unwritten 1, before is after 1
    left
    columns  2
    step     S                 -> unwritten 0, stale 0, before is after 0
    """,
)
case(
    "a parameter that came back is a new one",
    """
    end      NN writes 01      -> measures 01
    step     SS                -> as usual
    left
    columns  0
    columns  0 new
    begin    SN                -> looks at 0
    end      OO writes 01      -> measures 01
    step     SS                -> leaked 0
    """,
)
case(
    "losses go with their parameters",
    """
    end      NA writes 0 loss 1 -> measures 0
    end      SN writes 1 loss 2 -> measures 01
    shared   01
    columns  1 0
    end      OO writes 01 loss 1 -> measures 01
    step     SS                -> leaked 0
    """,
)
case(
    "a new parameter has no loss",
    """
    end      NN writes 01 loss 7 -> measures 01
    columns  0 new
    left
    shared   1
    end      SO writes 1 loss 7 -> measures 1
    step     SS                -> leaked 1, unwritten 0, stale 0, before is after 0
    """,
)


# How the tables are read

LETTERS = "ASOCN"
KNOWN = "anew", "outdated", "gone", "changed", "written"
NONE = frozenset[int]()


class Reader:
    """Leads a state from event to event, and says in words what followed."""

    def __init__(self, columns: int) -> None:
        self.state = Provenance.unknown(columns)
        self.erased: tuple[tuple[int, ...], tuple[int, ...]] = (), ()
        self.written = NONE

    def follow(self, line: str) -> str:
        """What follows from the event of a line."""
        event, *words = line.split()
        if event == "columns":
            known = np.array([word != "new" for word in words])
            columns = np.array([0 if word == "new" else int(word) for word in words])
            self.state = self.state.with_columns(columns, known)
            return ""
        seen = self._seen(event, words)
        self.state, self.erased, self.written = seen.state, seen.erased or ((), ()), seen.written
        if seen.consumed is not None:
            return _odd(seen.consumed) or "as usual"
        measured = tuple(np.frombuffer(seen.places, dtype=np.int64).tolist())
        return _named({"measures": measured, "looks at": seen.look_at})

    def known(self, what: str) -> str:
        """What a line may say of the state that the event has led to."""
        anew = tuple(column for column in range(len(self.state.flags)) if self.state.is_begun_anew(column))
        gone, changed = self.erased
        known = {"anew": anew, "outdated": self.state.outdated, "gone": gone, "changed": changed}
        known["written"] = tuple(sorted(self.written))
        return "".join(map(str, known[what]))

    def _seen(self, event: str, words: list[str]) -> Seen:
        state, rest = self.state, " ".join(words[1:])
        due, in_pass = "not due" not in rest, "in pass" in rest
        if event in ("shared", "elsewhere", "zeroed"):
            return state[getattr(events, event), _columns(words[0])]
        if event == "left":
            return state[events.left, words != ["not", "due"]]
        codes = bytes(LETTERS.index(letter) for letter in words[0])
        assert len(codes) == len(state.flags)
        if event == "begin":
            return state[events.beginning, codes]
        if event == "end":
            written, compared = (frozenset(_columns(_after(word, words, ""))) for word in ("writes", "compares"))
            loss = int(_after("loss", words, "0"))
            return state[events.ended, codes, written, compared, loss, "unmeasured" not in words]
        if event == "clipping":
            return state[events.clipping, codes, _columns(words[1]), due, in_pass]
        if event == "clipped":
            return state[events.clipped, codes, _columns(words[1])]
        if event == "step":
            return state[events.consumed, codes, in_pass, _columns(_after("frozen", words, ""))]
        named = {"unscale": events.unscaled, "skip": events.skipped}
        return state[named[event], codes, due]


def _after(word: str, words: list[str], otherwise: str) -> str:
    return words[words.index(word) + 1] if word in words else otherwise


def _columns(digits: str) -> tuple[int, ...]:
    return tuple(map(int, digits))


def _named(columns: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {''.join(map(str, places))}" for name, places in columns.items() if places)


def _odd(consumed: Consumed) -> str:
    facts, covered = consumed
    flags: dict[str, Any] = {
        "missing": ~facts.has_after,
        "nothing before": ~facts.had_before,
        "leaked": facts.leaked,
        "unwritten": facts.unwritten,
        "stale": facts.stale,
        "frozen": facts.frozen,
        "missed": facts.missed_by_clip,
        "between": facts.clipped_between,
        "before is after": np.zeros(len(facts.frozen), dtype=bool) if covered is None else ~covered,
    }
    return _named({name: tuple(np.flatnonzero(flag).tolist()) for name, flag in flags.items()})


def lines_of(table: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Of each line the event, what must follow from it, and what must be known then."""
    for line in filter(None, map(str.strip, table.splitlines())):
        event, _, follows = line.partition("->")
        said = [words.strip() for words in follows.split(",")]
        known = dict((words + " ").split(" ", 1) for words in said if words.startswith(KNOWN))
        rest = ", ".join(words for words in said if words.split(" ")[0] not in known)
        yield event.strip(), rest, {what: columns.strip() for what, columns in known.items()}


@pytest.mark.parametrize("name", CASES)
def test_what_follows(name: str) -> None:
    lines = list(lines_of(CASES[name]))
    reader = Reader(len(next(e.split()[1] for e, *_ in lines if e.split()[0] not in ("shared", "elsewhere"))))
    for event, follows, known in lines:
        assert reader.follow(event) == follows, event
        assert {what: reader.known(what) for what in known} == known, event


# What holds whatever the events are

COLUMNS = 3
everything = st.lists(st.integers(0, COLUMNS - 1), unique=True).map(tuple)
some = everything.map(frozenset)
codes = st.lists(st.integers(0, 4), min_size=COLUMNS, max_size=COLUMNS).map(bytes)
happenings = st.one_of(
    st.tuples(st.just(events.beginning), codes),
    st.tuples(st.just(events.zeroed), everything),
    st.tuples(st.just(events.ended), codes, some, some, st.integers(0, 2), st.booleans()),
    st.tuples(st.just(events.clipping), codes, everything, st.booleans(), st.booleans()),
    st.tuples(st.just(events.clipped), codes, everything),
    st.tuples(st.just(events.unscaled), codes, st.booleans()),
    st.tuples(st.just(events.consumed), codes, st.booleans(), everything),
    st.tuples(st.just(events.skipped), codes, st.booleans()),
    st.tuples(st.just(events.left), st.booleans()),
    st.tuples(st.just(events.shared), everything),
    st.tuples(st.just(events.elsewhere), everything),
)


def plain(seen: Seen) -> tuple[object, ...]:
    """All that follows, to be compared."""
    odd = None if seen.consumed is None else _odd(seen.consumed)
    return seen.state.flags.tolist(), seen.state.losses.tolist(), seen.places, seen.look_at, seen.written, odd


def of_column(column: int, event: tuple[Any, ...]) -> tuple[Any, ...]:
    """The event as a single column meets it."""

    def part(value: Any) -> Any:
        if isinstance(value, bytes):
            return value[column : column + 1]
        if isinstance(value, (tuple, frozenset)):
            return type(value)(0 for place in value if place == column)
        return value

    return tuple(part(value) for value in event)


@given(st.lists(happenings, max_size=12))
def test_gradients_know_nothing_of_each_other(several: list[tuple[Any, ...]]) -> None:
    """So that it does not matter which parameters an optimizer holds besides."""
    whole = Provenance.unknown(COLUMNS)
    alone = [Provenance.unknown(1) for _ in range(COLUMNS)]
    for event, *arguments in several:
        seen = whole[(event, *arguments)]
        whole = seen.state
        for column in range(COLUMNS):
            of_it = alone[column][(event, *of_column(column, tuple(arguments)))]
            alone[column] = of_it.state
            assert of_it.state.flags[0] == whole.flags[column]
            assert of_it.state.losses[0] == whole.losses[column]
            measured = np.frombuffer(seen.places, dtype=np.int64)
            assert (of_it.places != b"") == (column in measured)
            assert (of_it.look_at != ()) == (column in seen.look_at)
            assert bool(of_it.written) == (column in seen.written)


@given(st.lists(happenings, min_size=1, max_size=6), st.integers(1, 3))
def test_what_is_remembered_is_what_would_be_found_anew(several: list[tuple[Any, ...]], times: int) -> None:
    remembering = Provenance.unknown(COLUMNS)
    for event, *arguments in several * (1 + times):
        before = remembering.flags.copy(), remembering.losses.copy()
        remembered = remembering[(event, *arguments)]
        anew = Provenance(*before)[(event, *arguments)]
        assert plain(remembered) == plain(anew)
        # A state is never changed by what it leads to.
        assert (remembering.flags.tolist(), remembering.losses.tolist()) == tuple(part.tolist() for part in before)
        remembering = remembered.state


def test_a_loop_that_repeats_is_worked_out_once() -> None:
    state = Provenance.unknown(2)
    absent, new, same = bytes([0, 0]), bytes([4, 4]), bytes([1, 1])
    found = []
    for _ in range(5):
        seen = []
        for event, *arguments in [
            (events.beginning, absent),
            (events.ended, new, frozenset((0, 1)), NONE, 0, True),
            (events.consumed, same, False, ()),
            (events.left, True),
        ]:
            seen.append(state[(event, *arguments)])
            state = seen[-1].state
        found.append([id(one) for one in seen])
    assert found[2] == found[3] == found[4]


def test_a_loop_that_never_repeats_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provenance, "MOST_KNOWN", 16)
    draw = np.random.default_rng(1)
    resting = state = Provenance.unknown(12)
    for _ in range(500):
        written = frozenset(np.flatnonzero(draw.random(12) < 0.5).tolist())
        codes = bytes(draw.integers(0, 5, 12, dtype=np.uint8))
        state = state[events.ended, codes, written, NONE, 0, True].state
        assert len(state._known) <= 16
        assert len(state) <= 16
    for begun in (resting, Provenance.unknown(12), state):
        assert len(led_to(begun)) <= 17


def led_to(state: Provenance) -> set[int]:
    """All that it holds, one way or another."""
    waiting, met = [state], {id(state)}
    while waiting:
        new = [seen.state for seen in waiting.pop().values() if id(seen.state) not in met]
        met |= set(map(id, new))
        waiting += new
    return met
