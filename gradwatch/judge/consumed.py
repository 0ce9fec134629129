"""What a step consumed of some gradients, as numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradwatch.judge.wording import listed
from gradwatch.records import StepRecord

__all__ = ["how_many", "norm_of"]


def norm_of(names: Sequence[str], record: StepRecord) -> float:
    """The norm that was consumed of the parameters of these names."""
    return math.hypot(*(record.parameters[name].norm_after for name in names if name in record.parameters))


def how_many(names: Sequence[str], record: StepRecord) -> str:
    """The parameters by name, and how many of all they are."""
    whole = len(record.parameters)
    return listed(names) + (f" ({len(names)} of {whole} parameters)" if whole > 1 else "")
