"""What a rule is made with: numbers that cannot be meant are refused when it is made, not passed over in a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from gradwatch.errors import ArgumentError

__all__ = ["checked"]

P = ParamSpec("P")


def checked(make: Callable[P, None]) -> Callable[P, None]:
    """A rule's ``__init__`` that refuses thresholds which are no number above 0, whole where their default is.

    Raises:
        ArgumentError: one is none.
    """
    defaults = {name: given.default for name, given in inspect.signature(make).parameters.items()}

    @wraps(make)
    def made(*rule: P.args, **thresholds: P.kwargs) -> None:
        for name, value in thresholds.items():
            _check(f"{name} of the rule {type(rule[0]).__name__}", value, isinstance(defaults.get(name), int))
        make(*rule, **thresholds)

    return made


def _check(what: str, value: Any, whole: bool) -> None:
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not value > 0:
        expected = "a whole number of at least 1" if whole else "a number above 0"
        raise ArgumentError(f"{what} is {value!r}, but {expected} was expected.")
