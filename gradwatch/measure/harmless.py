"""What shield.c does, in Python: for where it was not built."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["Shield", "forked"]

P = ParamSpec("P")
R = TypeVar("R")


class Shield:
    """Wraps functions so that what they raise goes no further, and keeps the time.

    In a process that was forked since it was made, what it wraps does nothing.

    Args:
        caught: takes a function that raised, and the exception; it must not raise.
        stands_aside: asked at each call whether nothing is to run; None where that cannot be.

    Attributes:
        seconds: time spent inside what is wrapped, in seconds. One that is called inside another counts once, and
            so does the time in which two threads are inside.
    """

    def __init__(
        self, caught: Callable[[Callable[..., object], Exception], None], stands_aside: Callable[[], bool] | None
    ) -> None:
        self.seconds = 0.0
        self._caught = caught
        self._stands_aside = stands_aside
        self._forks = _forks
        self._inside = False

    def around(self, function: Callable[P, R]) -> Callable[P, R | None]:
        """The function, made harmless: None where it raised. Only ``Exception`` is kept."""
        clock = time.perf_counter

        def shielded(*args: P.args, **kwargs: P.kwargs) -> R | None:
            if self._forks != _forks or (self._stands_aside is not None and self._stands_aside()):
                return None
            nested, self._inside = self._inside, True
            began = clock()
            try:
                return function(*args, **kwargs)
            except Exception as error:
                self._caught(function, error)
                return None
            finally:
                # Only whoever came in first takes it back: what another thread saw meanwhile is not put back.
                if not nested:
                    self._inside = False
                    self.seconds += clock() - began

        return shielded


# How often this process is a fork of one that had gradwatch.
_forks = 0


def forked() -> None:
    """This process is a fork: what was made in the other one is silent."""
    global _forks
    _forks += 1
