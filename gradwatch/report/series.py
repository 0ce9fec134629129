"""The steps of one optimizer, as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.blocks.arrays import BoolArray, FloatArray
from gradwatch.records import GroupNorms, StepRecord
from gradwatch.sinks.figures import of_whole

__all__ = ["Series", "all_series"]

_NONE = GroupNorms(math.nan, math.nan)


@dataclass(frozen=True)
class Series:
    """An array has a row for each step.

    Attributes:
        optimizer: name of the optimizer.
        steps: the steps, in order.
        before: norms before clipping.
        after: norms of what the optimizer consumed.
        ratio: clip ratios; NaN where there is none, as of two norms that are 0.
        limit: limits of clipping; NaN where there was none.
        clipped: whether the norm was above the limit.
        skipped: whether the optimizer did not apply the update.
        nonfinite: whether the gradient held NaN or Inf.
        missing: whether no parameter had a gradient.
        lines: names of the report's lines.
        line_norms: ``[steps, lines]``: norms before clipping; NaN where a line was not there yet.
        line_missing: ``[steps, lines]``: whether a line had no gradient at all, or was not there yet.
    """

    optimizer: str
    steps: Sequence[StepRecord]
    before: FloatArray
    after: FloatArray
    ratio: FloatArray
    limit: FloatArray
    clipped: BoolArray
    skipped: BoolArray
    nonfinite: BoolArray
    missing: BoolArray
    lines: tuple[str, ...]
    line_norms: FloatArray
    line_missing: BoolArray

    @property
    def unconsumed(self) -> BoolArray:
        """Whether the optimizer consumed nothing, so that there is no norm after clipping."""
        unconsumed: BoolArray = self.missing | (self.skipped & np.isnan(self.after))
        return unconsumed

    @property
    def zero(self) -> BoolArray:
        """Whether what the optimizer consumed was exactly 0."""
        zero: BoolArray = (self.after == 0.0) | ((self.before == 0.0) & self.skipped)
        return zero


def all_series(steps: Mapping[str, Sequence[StepRecord]]) -> list[Series]:
    """Those of each optimizer of which there is a step."""
    return [_series_of(optimizer, its_steps) for optimizer, its_steps in steps.items() if its_steps]


def _series_of(optimizer: str, steps: Sequence[StepRecord]) -> Series:
    before = np.array([step.norm_before for step in steps])
    lines = tuple(dict.fromkeys(name for step in steps for name in step.modules))
    norms = np.array([[step.modules.get(name, _NONE).norm_before for name in lines] for step in steps])
    figures = [of_whole(step) for step in steps]
    missing = [[name in step.missing_modules or name not in step.modules for name in lines] for step in steps]
    return Series(
        optimizer=optimizer,
        steps=steps,
        before=before,
        after=np.array([step.norm_after for step in steps]),
        ratio=np.array([math.nan if one.ratio is None else one.ratio for one in figures]),
        limit=np.array([math.nan if step.max_norm is None else step.max_norm for step in steps]),
        clipped=np.array([step.clipped for step in steps]),
        skipped=np.array([step.skipped for step in steps]),
        # A norm that is infinite in a brief line of long ago names no parameter.
        nonfinite=np.array([bool(step.nonfinite) for step in steps]) | np.isinf(before),
        missing=np.array([one.before is None for one in figures]),
        lines=lines,
        line_norms=norms.reshape(len(steps), len(lines)),
        line_missing=np.array(missing, dtype=bool).reshape(len(steps), len(lines)),
    )
