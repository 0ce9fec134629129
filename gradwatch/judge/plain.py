"""Alerts and causes as plain values: numbers may be NaN or Inf, which JSON lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradwatch.shapes import FLAG, TEXT, Either, Fields, Named, Number, OneOf

__all__ = ["CAUSE", "NUMBER", "restored", "saved_values"]

# A number that JSON lacks is saved so, since a string may be a piece of evidence.
_NO_JSON = "no JSON number"

NUMBER = Either(Number(), Fields(**{_NO_JSON: OneOf("nan", "inf", "-inf")}))

CAUSE = Fields(kind=TEXT, where=TEXT, evidence=Named(Either(NUMBER, FLAG, TEXT)), remedy=TEXT)


def saved_values(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {name: saved_values(entry) for name, entry in value.items()}
    return {_NO_JSON: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def restored(value: Any) -> Any:
    """The value that was saved so."""
    if not isinstance(value, Mapping):
        return value
    if set(value) == {_NO_JSON}:
        return float(value[_NO_JSON])
    return {name: restored(entry) for name, entry in value.items()}
