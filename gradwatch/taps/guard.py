"""No error of gradwatch reaches a training loop: it is logged once for each place and counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["Guard"]

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("gradwatch")


class Guard:
    """Wraps what runs inside a training loop: keeps errors in, and keeps the time.

    Attributes:
        errors: errors kept from the training loop.
        seconds: time spent inside the wrapped functions, in seconds.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.seconds = 0.0
        self._logged: set[str] = set()

    def around(self, function: Callable[P, R]) -> Callable[P, R | None]:
        """The function, made harmless: None where it raised.

        Only ``Exception`` is kept: an interrupt from the keyboard is the user's.
        """

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            except Exception:
                self.errors += 1
                self._log_once(getattr(function, "__qualname__", repr(function)))
                return None
            finally:
                self.seconds += time.perf_counter() - began

        return guarded

    def _log_once(self, place: str) -> None:
        if place not in self._logged:
            self._logged.add(place)
            log.exception("gradwatch failed in %s; training goes on, this is logged once.", place)
