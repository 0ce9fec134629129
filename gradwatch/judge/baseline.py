"""A baseline that a few wild values do not move."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping

__all__ = ["Baseline"]


class Baseline:
    """Median and spread of the logarithm of the last values.

    Args:
        window: values kept.
    """

    # 1.4826 MAD estimates the standard deviation of a normal distribution (Rousseeuw and Croux 1993).
    _MAD_TO_SIGMA = 1.4826

    def __init__(self, window: int = 200) -> None:
        self._window = window
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, value: float) -> None:
        """Take a value in; zero, NaN and Inf have no logarithm and are passed over."""
        if not (0.0 < value < math.inf):
            return
        if len(self._recent) == self._window:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        logarithm = math.log(value)
        self._recent.append(logarithm)
        insort(self._sorted, logarithm)

    def state_dict(self) -> dict[str, list[float]]:
        """The logarithms kept, oldest first."""
        return {"recent": list(self._recent)}

    def load_state_dict(self, state: Mapping[str, Iterable[float]]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._recent = deque(list(state["recent"])[-self._window :])
        self._sorted = sorted(self._recent)

    def median(self) -> float:
        """The median of the values (the lower one of the middle two)."""
        return math.exp(self._sorted[(len(self._sorted) - 1) // 2])

    def spread(self) -> float:
        """The factor that one standard deviation, estimated from the MAD, makes up; at least 1."""
        middle = math.log(self.median())
        deviations = sorted(abs(logarithm - middle) for logarithm in self._sorted)
        return math.exp(self._MAD_TO_SIGMA * deviations[(len(deviations) - 1) // 2])
