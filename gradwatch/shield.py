"""No error of gradwatch reaches a training loop: it is logged once for each place, and counted; so is the time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from gradwatch.log import log
from gradwatch.measure import harmless, kernel

__all__ = ["ErrorShield"]

P = ParamSpec("P")
R = TypeVar("R")

_MAY_CAPTURE = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]


class ErrorShield:
    """Wraps what runs inside a training loop: keeps errors in, and keeps the time.

    Nothing runs in a forked child, such as a DataLoader's worker: it has inherited the hooks, but neither the
    thread that publishes nor the right to a lock that another thread held when it was forked. Nothing runs
    while a CUDA graph is captured either: what is captured runs again with no Python to tell of it.

    Args:
        way: what wraps; the native one where it was built, for there are ten such calls in a step.
    """

    def __init__(self, way: type[harmless.Shield] = kernel.Shield) -> None:
        self._way = way(self._caught, self._is_capturing if _MAY_CAPTURE else None)
        self._errors = 0
        self._earlier = log.errors
        self._logged: set[str] = set()

    @property
    def seconds(self) -> float:
        """Time spent inside the wrapped functions, in seconds.

        One that is called inside another counts once, and so does the time in which two threads are inside.
        """
        return self._way.seconds

    @property
    def errors(self) -> int:
        """Errors kept from the training loop, those of handlers of the log included."""
        return self._errors + log.errors - self._earlier

    def around(self, function: Callable[P, R]) -> Callable[P, R | None]:
        """The function, made harmless: None where it raised.

        Only ``Exception`` is kept: an interrupt from the keyboard is the user's.
        """
        return self._way.around(function)

    def _caught(self, function: Callable[..., object], error: Exception) -> None:
        self._errors += 1
        bare = getattr(function, "func", function)  # what a functools.partial is of
        place = getattr(bare, "__qualname__", repr(bare))
        if place not in self._logged:
            self._logged.add(place)
            message = "gradwatch failed in %s; training goes on, this is logged once."
            log.exception(message, place, exc_info=error)

    def _is_capturing(self) -> bool:
        if not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):  # type: ignore[no-untyped-call]
            return False
        if "capture" not in self._logged:
            self._logged.add("capture")
            log.warning("gradwatch leaves out what is captured in a CUDA graph: its steps have no records.")
        return True


# A shield is good in the process that made it, whichever way it wraps. Windows has no fork.
if hasattr(os, "register_at_fork"):
    for _forked in {kernel.forked, harmless.forked}:
        os.register_at_fork(after_in_child=_forked)
