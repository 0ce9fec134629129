"""From norms by slot to the record of a step."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gradwatch.measure.norms import FloatArray
from gradwatch.measure.ownership import Consumed
from gradwatch.measure.slots import Holding
from gradwatch.records import ClipCall, GroupNorms, NormTable, StepRecord, clip_ratio

__all__ = ["BY_VALUE", "Clip", "Row", "record_of"]

BY_VALUE = "clip_grad_value_"
EVERYTHING = slice(None)

# Between these the square of a norm loses nothing, and sums of many such squares stay in range.
_SMALLEST_TO_SQUARE, _LARGEST_TO_SQUARE = 1e-140, 1e140

BoolArray = npt.NDArray[np.bool_]


class Clip(NamedTuple):
    """A clipping call: what it was asked for, the norm that it computed, and the slots it was given."""

    function: str
    limit: float
    norm_type: float | None
    norm_returned: float | None
    slots: tuple[int, ...]
    repeated: tuple[int, ...] = ()


@dataclass
class Row:
    """The norms of one step, in the order of the holding.

    ``before`` and ``after`` hold any number where the flags say that no gradient was there; ``after`` is NaN
    where a step was skipped.
    """

    before: FloatArray
    had_before: BoolArray
    after: FloatArray
    has_after: BoolArray
    time: float
    backward_passes: int
    clips: Sequence[Clip] = ()
    skipped: bool = False
    loss_scale: float | None = None
    owned: Consumed | None = None
    frozen: BoolArray | None = None
    left_out: Mapping[str, tuple[str, ...]] | None = None
    clipped_instead: str | None = None


def record_of(optimizer: str, step: int, holding: Holding, row: Row) -> StepRecord:
    """The record of a step: norms of parameters, modules and the whole, and what clipping was asked for."""
    before, after = _Side(row.before, row.had_before), _Side(row.after, row.has_after)
    whole = GroupNorms(before.norm_of(EVERYTHING), after.norm_of(EVERYTHING))
    # A finite gradient has a finite norm, since norms are scaled where they must be.
    bad = row.had_before & ~np.isfinite(row.before)
    if not row.skipped:
        bad |= row.has_after & ~np.isfinite(row.after)
    clips = tuple(_clip_call(clip, holding, before, after) for clip in row.clips)
    limits = [clip for clip in clips if clip.scope_before is not None and _is_norm_limit(clip)]
    return StepRecord(
        optimizer=optimizer,
        step=step,
        time=row.time,
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
        skipped=row.skipped,
        loss_scale=row.loss_scale,
        missing=_named(~row.has_after, holding.names),
        nonfinite=_named(bad, holding.names),
        missing_modules=after.silent_modules(holding),
        left_out=row.left_out or {},
        clipped_instead=row.clipped_instead,
        **_ownership_of(row, holding),
    )


def _ownership_of(row: Row, holding: Holding) -> dict[str, tuple[str, ...]]:
    """The names of what was not written for this step; a gradient of exactly 0 is neither stale nor leaked."""
    if row.owned is None or row.frozen is None:
        return {}
    consumed = row.has_after & (row.after != 0.0)
    flags = {
        "unwritten": row.owned.unwritten,
        "stale": row.owned.stale & consumed,
        "leaked": row.owned.leaked & consumed,
        "missed_by_clip": row.owned.missed_by_clip & consumed,
        "clipped_between": row.owned.clipped_between & consumed,
        "frozen": row.frozen,
    }
    return {name: _named(flag, holding.names) for name, flag in flags.items()}


def _named(flags: BoolArray, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[i] for i in map(int, np.flatnonzero(flags))) if flags.any() else ()


class _Side:
    """The norms of one measurement, before or after, and the groups of them."""

    def __init__(self, norms: FloatArray, present: BoolArray) -> None:
        self._present = present
        self._complete = bool(present.all())
        self._norms = norms if self._complete else np.where(present, norms, 0.0)
        # Nearly always every square is in range; where one is not, each group is scaled by its own largest.
        in_range = (self._norms == 0.0) | (
            (self._norms > _SMALLEST_TO_SQUARE) & (self._norms < _LARGEST_TO_SQUARE)
        )
        self._squares = self._norms * self._norms if bool(in_range.all()) else None

    def norm_of(self, places: slice | npt.NDArray[np.intp]) -> float:
        """The norm of some parts taken together; NaN where none of them is there."""
        if not (self._complete or self._present[places].any()):
            return math.nan
        if self._squares is None:
            return _scaled_norm(self._norms[places])
        return math.sqrt(float(np.add.reduce(self._squares[places])))

    def module_norms(self, holding: Holding) -> list[float]:
        """The norm of each module, in one reduction over all of them."""
        if not holding.modules:
            return []
        if self._squares is None:
            return [self.norm_of(places) for places in holding.modules.values()]
        sums = np.add.reduceat(self._squares[holding.module_index], holding.module_starts)
        norms: list[float] = np.sqrt(sums).tolist()  # numpy: no device is read
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


def _scaled_norm(norms: FloatArray) -> float:
    """The norm of norms whose squares may leave the range: scaled by a power of two, which loses nothing."""
    largest = float(np.fmax.reduce(norms, initial=0.0))
    # Never below the normal range, where a division would overflow.
    usable = 0.0 < largest < math.inf
    scale = math.ldexp(1.0, max(math.frexp(largest)[1], -1000)) if usable else 1.0
    # Beside an Inf the squares of others may overflow: the sum is Inf either way.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scaled = norms / scale
        return scale * math.sqrt(float(np.add.reduce(scaled * scaled)))


def _clip_call(clip: Clip, holding: Holding, before: _Side, after: _Side) -> ClipCall:
    places = holding.places_of(clip.slots)
    return ClipCall(
        clip.function,
        clip.limit,
        clip.norm_type,
        clip.norm_returned,
        before.norm_of(places) if len(places) else None,
        after.norm_of(places) if len(places) else None,
        tuple(holding.names[place] for place in holding.places_of(clip.repeated)),
        float(holding.rounding[places].max(initial=0.0)),
    )


def _is_norm_limit(clip: ClipCall) -> bool:
    return clip.function != BY_VALUE and math.isfinite(clip.limit)


def _was_above(clip: ClipCall) -> bool:
    # The limit is held against the norm that torch was asked for, which need not be an L2 norm.
    norm = clip.norm_returned if clip.norm_returned is not None else clip.scope_before
    return norm is not None and norm > clip.limit
