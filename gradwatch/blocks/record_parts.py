"""The parts that the record of a step is made of."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gradwatch.blocks.arrays import AFTER, BEFORE, FloatArray
from gradwatch.blocks.layout import Groups, Layout
from gradwatch.blocks.rows import BY_GIVEN_NORM, Facts, NotedClip
from gradwatch.records import ClipCall, NormTable

__all__ = ["Scope", "Tables", "clip_call", "what_is_odd"]


def what_is_odd(layout: Layout, facts: Facts, after: FloatArray) -> dict[str, tuple[str, ...]]:
    """What is to be named of a step whose gradients were not all there, new and its own.

    Args:
        layout: what the columns are.
        facts: what is known of them.
        after: the norms that the optimizer consumed, ``[columns]``.
    """
    named = layout.named
    # A gradient of exactly 0 is neither stale nor leaked.
    consumed = facts.has_after & (after != 0.0)
    return {
        "missing": named(~facts.has_after),
        "missing_modules": _absent(layout.lines, facts),
        "missing_owners": _absent(layout.owners, facts),
        "unwritten": named(facts.unwritten),
        "stale": named(facts.stale & consumed),
        "leaked": named(facts.leaked & consumed),
        "frozen": named(facts.frozen),
        "missed_by_clip": named(facts.missed_by_clip & consumed),
        "clipped_between": named(facts.clipped_between & consumed),
    }


def clip_call(layout: Layout, clip: NotedClip, scope: Scope, index: int) -> ClipCall:
    """A clip call as a record has it.

    Args:
        layout: what the columns are.
        clip: the call.
        scope: the norms of what it was given, in each step of the block.
        index: of the step.
    """
    norms = (None, clip.norm_returned) if clip.function == BY_GIVEN_NORM else (clip.norm_returned, None)
    return ClipCall(
        clip.function,
        clip.limit,
        clip.norm_type,
        norms[0],
        scope.before[index],
        scope.after[index],
        tuple(layout.names[place] for place in clip.repeated) if clip.repeated else (),
        scope.rounding,
        norms[1],
    )


class Scope(NamedTuple):
    """Norms of what a clip call was given, one for each step of a block; None where that was nothing."""

    before: Sequence[float | None]
    after: Sequence[float | None]
    rounding: float


class Tables:
    """The norms of a block by name, to be cut into a table for each step."""

    def __init__(self, places: Mapping[str, int], norms: Callable[[int], FloatArray]) -> None:
        self._places = places
        self._before, self._after = (array("d", norms(side).tobytes()) for side in (BEFORE, AFTER))

    def at(self, index: int) -> NormTable:
        """The table of one step; it holds no other step's numbers."""
        width = len(self._places)
        one = slice(index * width, (index + 1) * width)
        return NormTable(self._places, self._before[one], self._after[one])


def _absent(groups: Groups, facts: Facts) -> tuple[str, ...]:
    """The groups of which no gradient was there at the step."""
    if facts.complete:
        return ()
    there = groups.any(facts.has_after[None])[0]
    return tuple(name for name, present in zip(groups.names, there.tolist(), strict=True) if not present)
