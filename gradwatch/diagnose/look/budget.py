"""How much a look may take, in a loop that may evaluate for hours before the step that would end it."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import ClassVar

__all__ = ["Budget"]


class Budget:
    """Counts what one look has seen.

    Attributes:
        spent: what it has had enough of, in words; empty while it has not.
    """

    # Calls of modules: 50 passes of a model of a thousand modules. What is kept of one is under a kilobyte.
    # Backward passes: micro-batches of one step. Each operation of each is looked at.
    MOST: ClassVar = {"calls": 50_000, "passes": 64}
    # Longer than a step takes: a model that is not stepped any more is at something else.
    SECONDS = 600.0

    def __init__(self) -> None:
        self._until = math.inf
        self._seen: Counter[str] = Counter()
        self.spent = ""

    def begin(self) -> None:
        """The look begins."""
        self._until = time.monotonic() + self.SECONDS

    def allows(self, what: str) -> bool:
        """Whether one more call or pass may be looked at."""
        self._seen[what] += 1
        if not self.spent and self._seen[what] > self.MOST[what]:
            self.spent = f"{self.MOST[what]} {what}"
        elif not self.spent and time.monotonic() > self._until:
            self.spent = f"{self.SECONDS:g} s"
        return not self.spent
