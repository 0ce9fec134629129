"""A baseline that a few wild values do not move."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from typing import Any

__all__ = ["Baseline"]


class Baseline:
    """Median and spread of the logarithm of the last values, and how high those before them were.

    Args:
        window: values kept.
    """

    # 1.4826 MAD estimates the standard deviation of a normal distribution (Rousseeuw and Croux 1993).
    _MAD_TO_SIGMA = 1.4826

    # Values in a row that make a level; a single one may be an accident.
    _IN_A_ROW = 3

    def __init__(self, window: int = 200) -> None:
        self._window = window
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        # Of the values that have left the window: the last ones, and the highest level so far.
        self._left: deque[float] = deque(maxlen=self._IN_A_ROW)
        self._height = -math.inf

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, value: float) -> None:
        """Take a value in; zero, NaN and Inf have no logarithm and are passed over."""
        if not (0.0 < value < math.inf):
            return
        if len(self._recent) == self._window:
            self._forget(self._recent.popleft())
        logarithm = math.log(value)
        self._recent.append(logarithm)
        insort(self._sorted, logarithm)

    def _forget(self, logarithm: float) -> None:
        del self._sorted[bisect_left(self._sorted, logarithm)]
        self._left.append(logarithm)
        if len(self._left) == self._IN_A_ROW:
            self._height = max(self._height, min(self._left))

    def state_dict(self) -> dict[str, Any]:
        """The logarithms kept and those that left last, oldest first; and that of the highest level before."""
        height = None if self._height == -math.inf else self._height
        return {"recent": list(self._recent), "left": list(self._left), "height": height}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._recent = deque(list(state["recent"])[-self._window :])
        self._sorted = sorted(self._recent)
        self._left.extend(state.get("left", ()))
        height = state.get("height")
        self._height = -math.inf if height is None else height

    def median(self) -> float:
        """The median of the values (the lower one of the middle two)."""
        return math.exp(self._sorted[(len(self._sorted) - 1) // 2])

    def height(self) -> float:
        """The highest that three values in a row were at which have left the window; 0 while none have."""
        return math.exp(self._height)

    def spread(self) -> float:
        """The factor that one standard deviation, estimated from the MAD, makes up; at least 1."""
        middle = math.log(self.median())
        deviations = sorted(abs(logarithm - middle) for logarithm in self._sorted)
        return math.exp(self._MAD_TO_SIGMA * deviations[(len(deviations) - 1) // 2])
