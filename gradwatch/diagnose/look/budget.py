"""How much a look may take, in a loop that may evaluate for hours before the step that would end it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["Budget"]


class Budget:
    """Counts what one look has seen.

    Args:
        clock: seconds, from whatever time on.

    Attributes:
        spent: what it has had enough of, in words; empty while it has not.
    """

    # Calls of modules: 50 passes of a model of a thousand modules. What is kept of one is under a kilobyte.
    CALLS = 50_000
    # Backward passes: micro-batches of one step. Each operation of each is looked at.
    PASSES = 64
    # Longer than a step takes: a model that is not stepped any more is at something else.
    SECONDS = 600.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = math.inf
        self._calls = self._passes = 0
        self.spent = ""

    def begin(self) -> None:
        """The look begins."""
        self._until = self._clock() + self.SECONDS

    def call(self) -> bool:
        """One more call of a module; whether it may be looked at."""
        self._calls += 1
        return self._goes_on(self._calls, self.CALLS, "calls")

    def run(self) -> bool:
        """One more backward pass; whether it may be looked at."""
        self._passes += 1
        return self._goes_on(self._passes, self.PASSES, "passes")

    def _goes_on(self, count: int, most: int, what: str) -> bool:
        if not self.spent and count > most:
            self.spent = f"{most} {what}"
        elif not self.spent and self._clock() > self._until:
            self.spent = f"{self.SECONDS:g} s"
        return not self.spent
