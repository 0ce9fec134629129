"""No error of gradwatch reaches a training loop: it is logged once for each place, and counted; so is the time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from gradwatch.log import log

__all__ = ["ErrorShield"]

P = ParamSpec("P")
R = TypeVar("R")

_MAY_CAPTURE = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]


class ErrorShield:
    """Wraps what runs inside a training loop: keeps errors in, and keeps the time.

    Nothing runs in a forked child, such as a DataLoader's worker: it has inherited the hooks, but neither the
    thread that publishes nor the right to a lock that another thread held when it was forked. Nothing runs
    while a CUDA graph is captured either: what is captured runs again with no Python to tell of it.

    Attributes:
        seconds: time spent inside the wrapped functions, in seconds. One that is called inside another counts
            once, and so does the time in which two threads are inside.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._errors = 0
        self._earlier = log.errors
        self._logged: set[str] = set()
        self._forks = _forks
        self._inside = False

    @property
    def errors(self) -> int:
        """Errors kept from the training loop, those of handlers of the log included."""
        return self._errors + log.errors - self._earlier

    def around(self, function: Callable[P, R]) -> Callable[P, R | None]:
        """The function, made harmless: None where it raised.

        Only ``Exception`` is kept: an interrupt from the keyboard is the user's.
        """
        clock = time.perf_counter

        def shielded(*args: P.args, **kwargs: P.kwargs) -> R | None:
            if self._forks != _forks or (_MAY_CAPTURE and self._is_capturing()):
                return None
            nested, self._inside = self._inside, True
            began = clock()
            try:
                return function(*args, **kwargs)
            except Exception:
                self._caught(function)
                return None
            finally:
                # Only whoever came in first takes it back: what another thread saw meanwhile is not put back.
                if not nested:
                    self._inside = False
                    self.seconds += clock() - began

        return shielded

    def _caught(self, function: Callable[..., object]) -> None:
        self._errors += 1
        bare = getattr(function, "func", function)  # what a functools.partial is of
        place = getattr(bare, "__qualname__", repr(bare))
        if place not in self._logged:
            self._logged.add(place)
            log.exception("gradwatch failed in %s; training goes on, this is logged once.", place)

    def _is_capturing(self) -> bool:
        if not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):  # type: ignore[no-untyped-call]
            return False
        if "capture" not in self._logged:
            self._logged.add("capture")
            log.warning("gradwatch leaves out what is captured in a CUDA graph: its steps have no records.")
        return True


# How often this process is a fork of one that had gradwatch: a shield is good in the process that made it.
_forks = 0


def _after_fork_in_child() -> None:
    global _forks
    _forks += 1


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
