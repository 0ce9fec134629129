"""What a block holds of one step besides its norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, methodcaller
from typing import ClassVar, NamedTuple

import numpy as np

from gradwatch.blocks.arrays import BoolArray, Columns
from gradwatch.blocks.once import once
from gradwatch.records import RankNorms

__all__ = [
    "BY_GIVEN_NORM",
    "BY_VALUE",
    "AlikeClips",
    "Facts",
    "InCommon",
    "NotedClip",
    "StepRow",
    "bytes_of",
    "in_common",
]

BY_VALUE, BY_GIVEN_NORM = "clip_grad_value_", "clip_grads_with_norm_"

# Bytes of a row and of a clip call, with the numbers in them.
_A_ROW, _A_CLIP = 400, 200

_facts, _clips = attrgetter("facts"), attrgetter("clips")
_left_out, _lost = attrgetter("left_out"), attrgetter("lost")
_values = methodcaller("values")
_complete, _marks = attrgetter("complete"), attrgetter("marks")

# What Facts says of a gradient beyond its being there.
_MARKS = ("unwritten", "stale", "leaked", "missed_by_clip", "clipped_between", "frozen")


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the gradients of a step besides their norms; each ``[columns]``, shared by steps alike.

    Attributes:
        had_before: there was a gradient before clipping.
        has_after: there was one at the step.
        unwritten: no backward pass has written it since the last step that was measured.
        stale: nor has anything else: it is as that step left it.
        leaked: an earlier step, of whatever optimizer, had used a part of it before the rest was added.
        missed_by_clip: a pass has written it after the last clip call that was given it.
        clipped_between: a clip call was given a part of it before a pass added the rest.
        frozen: the parameter requires no gradient.
    """

    had_before: BoolArray
    has_after: BoolArray
    unwritten: BoolArray
    stale: BoolArray
    leaked: BoolArray
    missed_by_clip: BoolArray
    clipped_between: BoolArray
    frozen: BoolArray

    ARRAYS: ClassVar[int] = 8

    @classmethod
    def usual(cls, columns: int) -> Facts:
        """Every gradient is there, was written for this step and is nobody else's."""
        yes, no = np.ones(columns, dtype=bool), np.zeros(columns, dtype=bool)
        return cls(yes, yes, no, no, no, no, no, no)

    @once
    def complete(self) -> bool:
        """Every gradient is there, before and after."""
        return bool(self.had_before.all() and self.has_after.all())

    @once
    def marks(self) -> frozenset[str]:
        """The names of those attributes, other than the first two, that hold for any gradient; usually none."""
        return frozenset(name for name in _MARKS if getattr(self, name).any())

    @property
    def as_usual(self) -> bool:
        """Complete, written for this step, and nobody else's."""
        return self.complete and not self.marks


class NotedClip(NamedTuple):
    """A clipping call: what it was asked for, the norm that it went by, and the columns that it was given.

    ``norm_returned`` is the norm that it computed, or, of a call that computes none, that it was given.
    ``columns`` is one and the same array for calls that are given the same parameters.
    """

    function: str
    limit: float
    norm_type: float | None
    norm_returned: float | None
    columns: Columns
    repeated: tuple[int, ...] = ()


class StepRow(NamedTuple):
    """What a block holds of one step besides its norms."""

    step: int
    time: float
    facts: Facts
    backward_passes: int = 1
    clips: tuple[NotedClip, ...] = ()
    skipped: bool = False
    loop_step: int | None = None
    loss_scale: float | None = None
    left_out: Mapping[str, tuple[str, ...]] | None = None
    clipped_instead: str | None = None
    lost_passes: int = 0
    compared: RankNorms | None = None
    lost: tuple[str, ...] = ()


def bytes_of(rows: Sequence[StepRow], columns: int) -> int:
    """About what these rows take up, but for what a clip call was given, which all that were given it share.

    Args:
        rows: of one optimizer.
        columns: its parameters.
    """
    facts = len(set(map(_facts, rows))) * Facts.ARRAYS * columns
    named = [
        *filter(None, map(_lost, rows)),
        *chain.from_iterable(map(_values, filter(None, map(_left_out, rows)))),
    ]
    names = 100 * len(named) + 8 * sum(map(len, named))
    return _A_ROW * len(rows) + _A_CLIP * sum(map(len, map(_clips, rows))) + facts + names


class AlikeClips(NamedTuple):
    """A clip call of each step, of the same function and of the same gradients: as ``NotedClip``.

    ``norms`` is None where one of them had none.
    """

    function: str
    limits: tuple[float, ...]
    norm_type: float | None
    norms: tuple[float, ...] | None
    columns: Columns
    repeated: tuple[int, ...]


class InCommon(NamedTuple):
    """What the rows of a block have in common: what loops that repeat themselves are asked once a block.

    Attributes:
        complete: every gradient is there in each step, before and after.
        marks: those that hold for any gradient in any step.
        skipped: some step was.
        unusual: some step has one of the fields that have no value as a rule, behind ``loop_step``.
        calls: the clip calls of each step, in their order; None where steps differ in them.
    """

    complete: bool
    marks: frozenset[str]
    skipped: bool
    unusual: bool
    calls: tuple[AlikeClips, ...] | None


def in_common(rows: Sequence[StepRow]) -> InCommon:
    """What these rows have in common, one at least."""
    _, _, facts, _, clips, skipped, _, *others = zip(*rows, strict=True)
    # Steps that are alike share theirs.
    kinds = set(facts)
    return InCommon(
        all(map(_complete, kinds)),
        frozenset().union(*map(_marks, kinds)),
        any(skipped),
        any(map(any, others)),
        _alike(clips),
    )


def _alike(clips: Sequence[tuple[NotedClip, ...]]) -> tuple[AlikeClips, ...] | None:
    if len(set(map(len, clips))) > 1:
        return None
    calls = []
    for call in zip(*clips, strict=True):
        functions, limits, types, norms, columns, repeated = zip(*call, strict=True)
        if max(map(len, map(set, (functions, types, map(id, columns), repeated)))) > 1:
            return None
        known = None if None in norms else norms
        calls.append(AlikeClips(functions[0], limits, types[0], known, columns[0], repeated[0]))
    return tuple(calls)
