"""From norms by slot to the record of a step."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gradwatch.measure.norms import FloatArray
from gradwatch.measure.slots import Holding
from gradwatch.records import ClipCall, GroupNorms, NormTable, StepRecord, clip_ratio

__all__ = ["BY_VALUE", "Row", "SeenClip", "record_of", "root_of_squares"]

BY_VALUE = "clip_grad_value_"
BoolArray = npt.NDArray[np.bool_]


@dataclass
class SeenClip:
    """A clipping call as the tap saw it, with the slots it was given."""

    function: str
    limit: float
    norm_type: float | None
    norm_returned: float | None
    slots: tuple[int, ...]


@dataclass
class Row:
    """The norms of one step, in the order of the holding.

    ``before`` and ``after`` hold 0.0 where the flags say that no gradient was there.
    """

    before: FloatArray
    had_before: BoolArray
    after: FloatArray
    has_after: BoolArray
    backward_passes: int
    clips: list[SeenClip] = field(default_factory=list)


def record_of(optimizer: str, step: int, holding: Holding, row: Row) -> StepRecord:
    """The record of a step: norms of parameters, modules and the whole, and what clipping was asked for."""
    before, after = (row.before, row.had_before), (row.after, row.has_after)

    def group(places: slice | npt.NDArray[np.intp]) -> GroupNorms:
        return GroupNorms(_norm_of(places, *before), _norm_of(places, *after))

    whole = group(slice(None))
    # A finite gradient has a finite norm, since norms are scaled where they must be.
    bad = ~(np.isfinite(row.before) & np.isfinite(row.after))
    clips = tuple(_clip_call(clip, group(holding.places_of(clip.slots))) for clip in row.clips)
    limits = [clip for clip in clips if clip.function != BY_VALUE and math.isfinite(clip.limit)]
    return StepRecord(
        optimizer=optimizer,
        step=step,
        time=time.time(),
        norm_before=whole.norm_before,
        norm_after=whole.norm_after,
        clip_ratio=clip_ratio(*whole),
        max_norm=min((clip.limit for clip in limits), default=None),
        clipped=any(_was_above(clip) for clip in limits),
        clips=clips,
        modules={name: group(places) for name, places in holding.modules.items()},
        parameters=NormTable(holding.places, _masked(*before), _masked(*after)),
        backward_passes=row.backward_passes,
        missing=_named(~row.has_after, holding.names),
        nonfinite=_named(bad, holding.names),
        missing_modules=tuple(n for n, places in holding.modules.items() if not row.has_after[places].any()),
    )


def _named(flags: BoolArray, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[i] for i in np.flatnonzero(flags)) if flags.any() else ()


def _masked(norms: FloatArray, present: BoolArray) -> array[float]:
    """Norms with NaN where there is no gradient, as an array of the standard library."""
    return array("d", np.where(present, norms, math.nan).tobytes())


def _norm_of(places: slice | npt.NDArray[np.intp], norms: FloatArray, present: BoolArray) -> float:
    """The norm of some parts taken together; NaN where none of them is there."""
    return root_of_squares(norms[places]) if present[places].any() else math.nan


def root_of_squares(norms: FloatArray) -> float:
    """The L2 norm of a whole whose parts have these norms, also where their squares leave float64."""
    largest = float(np.fmax.reduce(norms, initial=0.0))
    if 1e-140 < largest < 1e140:
        return math.sqrt(float(np.dot(norms, norms)))
    if largest == 0.0 or math.isinf(largest):
        return float(np.add.reduce(norms))
    return largest * math.sqrt(float(np.add.reduce((norms / largest) ** 2)))


def _clip_call(clip: SeenClip, scope: GroupNorms) -> ClipCall:
    return ClipCall(
        clip.function, clip.limit, clip.norm_type, clip.norm_returned, scope.norm_before, scope.norm_after
    )


def _was_above(clip: ClipCall) -> bool:
    # The limit is held against the norm that torch was asked for, which need not be an L2 norm.
    norm = clip.norm_returned if clip.norm_returned is not None else clip.scope_before
    return norm is not None and norm > clip.limit
