"""No error of gradwatch reaches a training loop: it is logged once for each place and counted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

__all__ = ["Guard", "untraced"]

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("gradwatch")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """The function as ``torch.compile`` leaves it alone: a compiled step or clip call leaves its graph for it."""
    return cast("Callable[P, R]", torch.compiler.disable(function))  # type: ignore[no-untyped-call]


class Guard:
    """Wraps what runs inside a training loop: keeps errors in, and keeps the time.

    Nothing runs in a forked child, such as a DataLoader's worker: it has inherited the hooks, but neither the
    thread that publishes nor the right to a lock that another thread held when it was forked. Nothing runs
    while a CUDA graph is captured either: what is captured runs again with no Python to tell of it.

    Attributes:
        errors: errors kept from the training loop.
        seconds: time spent inside the wrapped functions, in seconds.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.seconds = 0.0
        self._logged: set[str] = set()
        self._process = os.getpid()

    def around(self, function: Callable[P, R]) -> Callable[P, R | None]:
        """The function, made harmless: None where it raised.

        Only ``Exception`` is kept: an interrupt from the keyboard is the user's.
        """

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
            began = time.perf_counter()
            try:
                if os.getpid() != self._process or self._capturing():
                    return None
                return function(*args, **kwargs)
            except Exception:
                self.errors += 1
                bare = getattr(function, "func", function)  # what a functools.partial is of
                self._log_once(getattr(bare, "__qualname__", repr(bare)))
                return None
            finally:
                self.seconds += time.perf_counter() - began

        return guarded

    def _capturing(self) -> bool:
        if not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):  # type: ignore[no-untyped-call]
            return False
        if "capture" not in self._logged:
            self._logged.add("capture")
            log.warning("gradwatch leaves out what is captured in a CUDA graph: its steps have no records.")
        return True

    def _log_once(self, place: str) -> None:
        if place not in self._logged:
            self._logged.add(place)
            log.exception("gradwatch failed in %s; training goes on, this is logged once.", place)
