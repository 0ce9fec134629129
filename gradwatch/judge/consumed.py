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
    """The parameters by name, where they are not all."""
    return "any of its parameters" if len(names) == len(record.parameters) > 1 else listed(names)
