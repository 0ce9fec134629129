"""The rule on clipping that is always in force, and takes nearly everything."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from typing import Any

from gradwatch.judge.at_hand import shortcut
from gradwatch.judge.rule import Finding
from gradwatch.records import Severity, StepRecord

__all__ = ["ClipSaturated"]


class _Ratios:
    """One optimizer.

    Attributes:
        recent: the clip ratio of each step of late, infinite where clipping was not in force.
        ordered: the same in order of size.
        saturated: it was found to be saturated at the last look.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque()
        self.ordered: list[float] = []
        self.saturated = False

    def add(self, ratio: float, window: int) -> None:
        self.recent.append(ratio)
        insort(self.ordered, ratio)
        while len(self.recent) > window:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]


class ClipSaturated:
    """Clipping was in force in nearly every step and left less than a hundredth: it hides what the norm does.

    Until ``window`` steps have been seen, 9 in 20 of it are looked back on. A median moves slowly, and may stay
    close to ``ratio`` for long: it counts as above only at twice that, so that one state of affairs is one alert.

    Args:
        window: steps looked back on.
        share: share of them in which clipping must have been in force.
        ratio: median of norm after / norm before, below which it hides what it clips.
        clears_after: steps running in which that does not hold before the episode is over.
    """

    id = "clip-saturated"
    severity: Severity = "warning"
    fires_after = 1

    # Times the ratio at which it is over.
    _CLEARLY = 2.0

    def __init__(
        self, *, window: int = 100, share: float = 0.95, ratio: float = 0.01, clears_after: int = 20
    ) -> None:
        self.clears_after = clears_after
        self._window = window
        self._early = window * 9 // 20
        self._share = share
        self._ratio = ratio
        self._seen: dict[str, int] = {}
        self._ratios: dict[str, _Ratios] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where clipping is saturated."""
        if record.skipped or not math.isfinite(record.clip_ratio):
            return None
        name = record.optimizer
        ratios = self._ratios.get(name)
        if ratios is None:
            ratios = self._ratios[name] = _Ratios()
        seen = self._seen[name] = min(self._seen.get(name, 0) + 1, self._window)
        window = self._window if seen == self._window else self._early
        ratios.add(record.clip_ratio if record.clipped else math.inf, window)
        found = self._judged(record, ratios)
        ratios.saturated = bool(found)
        return found

    def state_dict(self) -> dict[str, Any]:
        """The ratios in each optimizer's window, None where clipping was not in force, and the steps seen."""
        return {
            name: {
                "seen": self._seen[name],
                "ratios": [None if r == math.inf else r for r in ratios.recent],
                "saturated": ratios.saturated,
            }
            for name, ratios in self._ratios.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        for name, saved in state.items():
            self._seen[name] = saved["seen"]
            ratios = self._ratios[name] = _Ratios()
            for ratio in saved["ratios"]:
                ratios.add(math.inf if ratio is None else ratio, self._window)
            ratios.saturated = saved.get("saturated", False)

    def _judged(self, record: StepRecord, ratios: _Ratios) -> list[Finding]:
        ordered, limit = ratios.ordered, self._ratio * (self._CLEARLY if ratios.saturated else 1.0)
        count = len(ordered)
        if count < self._early or ordered[(count - 1) // 2] >= limit:
            return []
        in_force = bisect_left(ordered, math.inf)
        if in_force <= self._share * count:
            return []
        middle = ordered[(count - 1) // 2]
        message = (
            f"clipping was in force in {in_force} of the last {count} steps and left {middle:.2g} of the norm in "
            f"the median (now {record.norm_before:.3g}, clipped to {record.norm_after:.3g}): the limit alone sets "
            "the size of each update, and hides what the norm does"
        )
        return [Finding(None, middle, self._ratio, message, cause=shortcut(record))]
