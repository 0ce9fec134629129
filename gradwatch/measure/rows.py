"""From norms by slot to the record of a step."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradwatch.measure.norms import FloatArray
from gradwatch.measure.slots import Holding
from gradwatch.records import ClipCall, GroupNorms, NormTable, StepRecord, clip_ratio

__all__ = ["BY_VALUE", "Row", "SeenClip", "record_of"]

BY_VALUE = "clip_grad_value_"
EVERYTHING = slice(None)
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
    clips: Sequence[SeenClip] = ()


def record_of(optimizer: str, step: int, holding: Holding, row: Row) -> StepRecord:
    """The record of a step: norms of parameters, modules and the whole, and what clipping was asked for."""
    before, after = _Side(row.before, row.had_before), _Side(row.after, row.has_after)
    whole = GroupNorms(before.norm_of(EVERYTHING), after.norm_of(EVERYTHING))
    # A finite gradient has a finite norm, since norms are scaled where they must be.
    bad = ~(np.isfinite(row.before) & np.isfinite(row.after))
    clips = tuple(_clip_call(clip, holding, before, after) for clip in row.clips)
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
        modules=dict(
            zip(
                holding.modules,
                map(GroupNorms, before.module_norms(holding), after.module_norms(holding)),
                strict=True,
            )
        ),
        parameters=NormTable(holding.places, before.masked(), after.masked()),
        backward_passes=row.backward_passes,
        missing=_named(~row.has_after, holding.names),
        nonfinite=_named(bad, holding.names),
        missing_modules=after.silent_modules(holding),
    )


def _named(flags: BoolArray, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[i] for i in map(int, np.flatnonzero(flags))) if flags.any() else ()


class _Side:
    """The norms of one measurement, before or after, and the groups of them."""

    def __init__(self, norms: FloatArray, present: BoolArray) -> None:
        self._norms = norms
        self._present = present
        self._complete = bool(present.all())
        largest = float(np.fmax.reduce(norms, initial=0.0))
        # A power of two, so that scaling loses nothing; nearly always 1.
        self._scale = 1.0 if 1e-140 < largest < 1e140 else _power_of_two(largest)
        scaled = norms if self._scale == 1.0 else norms / self._scale
        # Beside an Inf the squares of others may overflow: the sum is Inf either way.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            self._squares = scaled * scaled

    def norm_of(self, places: slice | npt.NDArray[np.intp]) -> float:
        """The norm of some parts taken together; NaN where none of them is there."""
        if not (self._complete or self._present[places].any()):
            return math.nan
        return self._scale * math.sqrt(float(np.add.reduce(self._squares[places])))

    def module_norms(self, holding: Holding) -> list[float]:
        """The norm of each module, in one reduction over all of them."""
        if not holding.modules:
            return []
        sums = np.add.reduceat(self._squares[holding.module_index], holding.module_starts)
        norms: list[float] = (self._scale * np.sqrt(sums)).tolist()  # numpy: no device is read
        if not self._complete:
            for place, there in enumerate(self._modules_present(holding)):
                norms[place] = norms[place] if there else math.nan
        return norms

    def silent_modules(self, holding: Holding) -> tuple[str, ...]:
        """The modules of which no gradient is there."""
        if self._complete or not holding.modules:
            return ()
        present = self._modules_present(holding)
        return tuple(name for name, there in zip(holding.modules, present, strict=True) if not there)

    def masked(self) -> array[float]:
        """Norms with NaN where there is no gradient, as an array of the standard library."""
        norms = self._norms if self._complete else np.where(self._present, self._norms, math.nan)
        return array("d", norms.tobytes())

    def _modules_present(self, holding: Holding) -> BoolArray:
        return np.logical_or.reduceat(self._present[holding.module_index], holding.module_starts)


def _power_of_two(largest: float) -> float:
    if largest == 0.0 or not math.isfinite(largest):
        return 1.0
    # Never below the normal range, where a division would overflow.
    return math.ldexp(1.0, max(math.frexp(largest)[1], -1000))


def _clip_call(clip: SeenClip, holding: Holding, before: _Side, after: _Side) -> ClipCall:
    places = holding.places_of(clip.slots)
    return ClipCall(
        clip.function,
        clip.limit,
        clip.norm_type,
        clip.norm_returned,
        before.norm_of(places),
        after.norm_of(places),
    )


def _was_above(clip: ClipCall) -> bool:
    # The limit is held against the norm that torch was asked for, which need not be an L2 norm.
    norm = clip.norm_returned if clip.norm_returned is not None else clip.scope_before
    return norm is not None and norm > clip.limit
