"""The records of a block, made one by one when they are asked for."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gradwatch.blocks.arrays import AFTER, BEFORE, FloatArray
from gradwatch.blocks.layout import Groups
from gradwatch.blocks.rows import BY_GIVEN_NORM, Facts, NotedClip
from gradwatch.records import ClipCall, NormTable, StepRecord

if TYPE_CHECKING:
    from gradwatch.blocks.block import Block

__all__ = ["Scope", "Tables", "record_of"]


def record_of(block: Block, index: int) -> StepRecord:
    """That of a step."""
    row, layout = block.rows[index], block.layout
    before, after = block.wholes[BEFORE][index], block.wholes[AFTER][index]
    modules, owners, parameters = [table.at(index) for table in block.tables]
    clips = tuple(_clip_call(block, clip, index) for clip in row.clips)
    max_norm, clipped = block.clipping[index]
    return StepRecord(
        optimizer=layout.optimizer,
        step=row.step,
        time=row.time,
        norm_before=before,
        norm_after=after,
        clip_ratio=block.clip_ratios[index],
        max_norm=max_norm,
        clipped=clipped,
        clips=clips,
        modules=modules,
        owners=owners,
        parameters=parameters,
        backward_passes=row.backward_passes,
        skipped=row.skipped,
        loss_scale=row.loss_scale,
        loop_step=row.loop_step,
        nonfinite=layout.named(block.bad[index]) if block.any_bad[index] else (),
        left_out=row.left_out or {},
        clipped_instead=row.clipped_instead,
        lost_passes=row.lost_passes,
        lost=row.lost,
        compared=row.compared,
        **({} if row.facts.as_usual else _what_is_odd(block, row.facts, index)),
    )


def _what_is_odd(block: Block, facts: Facts, index: int) -> dict[str, tuple[str, ...]]:
    """What is to be named of a step whose gradients were not all there, new and its own."""
    layout, named = block.layout, block.layout.named
    # A gradient of exactly 0 is neither stale nor leaked.
    consumed = facts.has_after & (block.parameter_norms(AFTER)[index] != 0.0)
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


def _clip_call(block: Block, clip: NotedClip, index: int) -> ClipCall:
    before, after, rounding = block.scope(clip.columns)
    norms = (None, clip.norm_returned) if clip.function == BY_GIVEN_NORM else (clip.norm_returned, None)
    return ClipCall(
        clip.function,
        clip.limit,
        clip.norm_type,
        norms[0],
        before[index],
        after[index],
        tuple(block.layout.names[place] for place in clip.repeated) if clip.repeated else (),
        rounding,
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
