"""What a Prometheus server is shown: counts and newest values, as plain state that a scrape reads.

A scrape builds its samples from this state; a step only sets numbers. That keeps a step cheap however many
series there are.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from gradwatch.records import Alert, GroupNorms, StepRecord

__all__ = ["BOUNDS", "OptimizerState", "WindowMax"]

# Half decades from 1e-8 to 1e6.
BOUNDS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-16, 13))


class WindowMax:
    """The largest value of the last minute, in six slots of ten seconds.

    It is never reset by a scrape: a second server would miss what the first one took.
    """

    SLOT_SECONDS = 10
    SLOTS = 6

    def __init__(self) -> None:
        self._largest = [math.nan] * self.SLOTS
        self._slot_of = [-1] * self.SLOTS

    def add(self, value: float, time: float) -> None:
        """Take in a finite value at a Unix time in seconds."""
        slot = int(time // self.SLOT_SECONDS)
        place = slot % self.SLOTS
        if self._slot_of[place] != slot:
            self._slot_of[place], self._largest[place] = slot, value
        self._largest[place] = max(self._largest[place], value)

    def at(self, time: float) -> float:
        """The largest value of the minute before this Unix time, NaN where there is none."""
        oldest = int(time // self.SLOT_SECONDS) - self.SLOTS
        recent = [v for v, slot in zip(self._largest, self._slot_of, strict=True) if slot > oldest]
        return max(recent, default=math.nan)


@dataclass
class OptimizerState:
    """Everything shown of one optimizer; counts begin at 0 so that a first event is an increase."""

    steps: int = 0
    clipped: int = 0
    skipped: int = 0
    nonfinite: int = 0
    newest: StepRecord | None = None
    window: WindowMax = field(default_factory=WindowMax)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    finite_sum: float = 0.0
    module_nonfinite: Counter[str] = field(default_factory=Counter)
    fired: Counter[tuple[str, str]] = field(default_factory=Counter)
    active: dict[tuple[str, str, str], bool] = field(default_factory=dict)

    def take(self, record: StepRecord) -> None:
        """Count a step."""
        self.steps += 1
        self.clipped += record.clipped
        self.skipped += record.skipped
        self.nonfinite += bool(record.nonfinite)
        self.newest = record
        norm = record.norm_before
        if math.isfinite(norm):
            # NaN would stay in the sum for ever.
            self.window.add(norm, record.time)
            self.buckets[bisect_left(BOUNDS, norm)] += 1
            self.finite_sum += norm
        if record.nonfinite:
            for name, norms in record.modules.items():
                self.module_nonfinite[name] += _not_finite(norms) and name not in record.missing_modules

    def take_alert(self, alert: Alert) -> None:
        """Count an alert, and note whether it fires."""
        if alert.state == "firing":
            self.fired[alert.rule, alert.severity] += 1
        self.active[alert.rule, alert.severity, alert.module or ""] = alert.state != "resolved"


def _not_finite(norms: GroupNorms) -> bool:
    return not (math.isfinite(norms.norm_before) and math.isfinite(norms.norm_after))
