"""What a file could not be given: counted while it cannot, told when it can again, in the log and in the file."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Losses", "Lost", "reason_of"]

log = logging.getLogger("gradwatch")


class Lost(NamedTuple):
    """What is missing in a file, and why."""

    steps: int
    alerts: int
    reason: str

    def __str__(self) -> str:
        return f"{self.steps} steps and {self.alerts} alerts are missing: {self.reason}."


class Losses:
    """Counts what one file misses.

    Args:
        where: the file in words, as a sentence begins.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._steps = self._alerts = 0
        self._reasons: list[str] = []

    def add(self, steps: int, alerts: int, reason: str) -> None:
        """Count steps and alerts that are lost."""
        self._steps += steps
        self._alerts += alerts
        if (steps or alerts) and reason not in self._reasons:
            self._reasons.append(reason)

    @property
    def so_far(self) -> Lost | None:
        """What is to be told; None where nothing was lost."""
        if not self._steps and not self._alerts:
            return None
        return Lost(self._steps, self._alerts, ", ".join(self._reasons))

    def tell(self, how: str) -> None:
        """Say it in the log, and begin to count anew."""
        lost = self.so_far
        self._steps = self._alerts = 0
        self._reasons.clear()
        if lost is not None:
            with suppress(Exception):  # a handler of the user's
                log.warning("%s %s; %s", self._where, how, lost)


def reason_of(error: BaseException) -> str:
    """Why, as the system says it."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
