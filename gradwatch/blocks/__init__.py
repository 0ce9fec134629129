"""Steps in blocks: what was measured, as arrays, and the record of a step made when somebody reads it.

A training loop appends one ``StepRow`` a step. Rules of gradwatch's own look at the arrays of a whole block, and
sinks convert it in a thread of their own; a ``StepRecord`` of every step is made only for who asks for it.
"""

from gradwatch.blocks.arrays import AFTER, BEFORE, BoolArray, Columns, FloatArray
from gradwatch.blocks.block import Block
from gradwatch.blocks.kept import Kept
from gradwatch.blocks.layout import Groups, Layout
from gradwatch.blocks.rows import BY_GIVEN_NORM, BY_VALUE, AlikeClips, Facts, NotedClip, StepRow
from gradwatch.blocks.steps import Alike, Steps, optimizer_of

__all__ = [
    "AFTER",
    "BEFORE",
    "BY_GIVEN_NORM",
    "BY_VALUE",
    "Alike",
    "AlikeClips",
    "Block",
    "BoolArray",
    "Columns",
    "Facts",
    "FloatArray",
    "Groups",
    "Kept",
    "Layout",
    "NotedClip",
    "StepRow",
    "Steps",
    "optimizer_of",
]
