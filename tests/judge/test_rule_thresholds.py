"""No rule is made with a threshold that cannot be meant."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import pytest

from gradwatch.errors import ArgumentError
from gradwatch.rules import default_rules

THRESHOLDS = [
    (type(rule), name, default.default)
    for rule in default_rules()
    for name, default in inspect.signature(type(rule)).parameters.items()
]


@pytest.mark.parametrize(("kind", "name", "default"), THRESHOLDS)
def test_a_threshold_is_a_number_above_0(kind: Any, name: str, default: float) -> None:
    kind(**{name: default})
    for value in (-1, 0, math.nan, "3", None, True, *([1.5] if isinstance(default, int) else [])):
        with pytest.raises(
            ArgumentError, match=re.escape(f"{name} of the rule {kind.__name__} is {value!r}, but a ")
        ):
            kind(**{name: value})


def test_there_are_thresholds() -> None:
    assert len(THRESHOLDS) > 30
