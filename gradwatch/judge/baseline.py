"""A baseline that a few wild values do not move."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

__all__ = ["Baseline"]


class Baseline:
    """Median and spread of the logarithm of the last values, and the levels that were held: lately, and ever.

    A level is held by three values in a row; a single one may be an accident.

    Args:
        window: values kept.
    """

    # 1.4826 MAD estimates the standard deviation of a normal distribution (Rousseeuw and Croux 1993).
    _MAD_TO_SIGMA = 1.4826

    _IN_A_ROW = 3

    def __init__(self, window: int = 200) -> None:
        self._window = window
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._height = -math.inf

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
        if logarithm > self._height:
            self._height = max(self._height, self._level(len(self._recent) - self._IN_A_ROW))

    def add_all(self, values: Sequence[float]) -> None:
        """Take several in, each above 0 and finite: as one by one, at the price of a few."""
        recent, logarithms = self._recent, list(map(math.log, values))
        ends = [recent[place] for place in range(-min(self._IN_A_ROW - 1, len(recent)), 0)] + logarithms
        held = (min(ends[end - self._IN_A_ROW : end]) for end in range(self._IN_A_ROW, len(ends) + 1))
        self._height = max(self._height, max(held, default=-math.inf))
        recent.extend(logarithms)
        while len(recent) > self._window:
            recent.popleft()
        self._sorted = sorted(recent)

    def median_after(self, more: int) -> float:
        """What the median is at least, whatever so many more values are; 0 where that cannot be said."""
        place = (len(self._sorted) - 1) // 2 - more
        return math.exp(self._sorted[place]) if place >= 0 else 0.0

    def keep(self, first: int) -> None:
        """Forget all but the first values."""
        kept = list(islice(self._recent, first))
        self._recent, self._sorted = deque(kept), sorted(kept)
        self._height = self._highest(0)

    def state_dict(self) -> dict[str, Any]:
        """The logarithms kept, oldest first, and that of the highest level ever held."""
        return {"recent": list(self._recent), "height": None if self._height == -math.inf else self._height}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._recent = deque(list(state["recent"])[-self._window :])
        self._sorted = sorted(self._recent)
        height = state["height"]
        self._height = self._highest(0) if height is None else height

    def values(self) -> list[float]:
        """The values kept, oldest first."""
        return [math.exp(logarithm) for logarithm in self._recent]

    def median(self) -> float:
        """The median of the values (the lower one of the middle two)."""
        return math.exp(self._sorted[(len(self._sorted) - 1) // 2])

    def height(self) -> float:
        """The highest level ever held; 0 while there is none."""
        return math.exp(self._height)

    def held_lately(self, values: int) -> float:
        """The highest level held by the newest values."""
        return math.exp(self._highest(max(len(self._recent) - values, 0)))

    def seen_lately(self, values: int) -> float:
        """The largest of the newest values."""
        return math.exp(max(islice(self._recent, max(len(self._recent) - values, 0), None), default=-math.inf))

    def spread(self) -> float:
        """The factor that one standard deviation, estimated from the MAD, makes up; at least 1."""
        middle = math.log(self.median())
        deviations = sorted(abs(logarithm - middle) for logarithm in self._sorted)
        return math.exp(self._MAD_TO_SIGMA * deviations[(len(deviations) - 1) // 2])

    def _highest(self, start: int) -> float:
        places = range(start, len(self._recent) - self._IN_A_ROW + 1)
        return max(map(self._level, places), default=-math.inf)

    def _level(self, start: int) -> float:
        """What was held from there on."""
        if start < 0:
            return -math.inf
        some: Iterable[float] = islice(self._recent, start, start + self._IN_A_ROW)
        return min(some)
