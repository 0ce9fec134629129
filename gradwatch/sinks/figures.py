"""The norms of a step as screens show them: what is not there is ``none``, what is not a number is NaN."""

from __future__ import annotations

import math
from typing import NamedTuple

from gradwatch.records import GroupNorms, StepRecord, clip_ratio

__all__ = ["Figures", "number", "of_line", "of_parameter", "of_whole"]


class Figures(NamedTuple):
    """Norm before, norm after and their ratio; None where there is none."""

    before: float | None
    after: float | None
    ratio: float | None


def number(value: float | None, digits: int = 4) -> str:
    """So many digits; what is not finite by its name."""
    if value is None:
        return "none"
    return f"{value:.{digits}g}" if math.isfinite(value) else str(value)


def of_whole(record: StepRecord) -> Figures:
    """Those of all gradients together."""
    norms = GroupNorms(record.norm_before, record.norm_after)
    # A gradient that is not a number is named.
    return _figures(norms, math.isnan(norms.norm_before) and not record.nonfinite, record.skipped)


def of_line(record: StepRecord, name: str) -> Figures:
    """Those of a line of the report."""
    return _figures(record.modules[name], name in record.missing_modules, record.skipped)


def of_parameter(record: StepRecord, name: str) -> Figures:
    """Those of a parameter."""
    return _figures(record.parameters[name], name in record.missing, record.skipped)


def _figures(norms: GroupNorms, missing: bool, skipped: bool) -> Figures:
    before, after = norms
    if missing:
        return Figures(None, None, None)
    if skipped and math.isnan(after):
        return Figures(before, None, None)
    # Of nothing no share is left.
    return Figures(before, after, None if before == after == 0.0 else clip_ratio(before, after))
