"""A baseline that a few wild values do not move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradwatch.judge.window import Window

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
        self._logarithms = Window()
        self._height = -math.inf

    def __len__(self) -> int:
        return len(self._logarithms)

    def add(self, value: float) -> None:
        """Take a value in; zero, NaN and Inf have no logarithm and are passed over."""
        if 0.0 < value < math.inf:
            logarithm = math.log(value)
            self._logarithms.add(logarithm, self._window)
            if logarithm > self._height:
                self._height = max(self._height, self._highest(len(self) - self._IN_A_ROW))

    def add_all(self, logarithms: Sequence[float]) -> None:
        """Take in several, by their logarithms: as one by one, at the price of a few."""
        if max(logarithms) > self._height:
            before = self._logarithms.values[1 - self._IN_A_ROW :]
            self._height = max(self._height, self._held_in([*before, *logarithms]))
        self._logarithms.add_all(logarithms, self._window)

    def stays_at_least(self, logarithm: float, more: int) -> bool:
        """Whether the median cannot be less than this, by its logarithm, whatever so many more values are."""
        return self._logarithms.is_at_least(self._middle - more, logarithm)

    def keep(self, first: int) -> None:
        """Forget all but the first values."""
        self._logarithms = Window(self._logarithms.values[:first])
        self._height = self._highest(0)

    def state_dict(self) -> dict[str, Any]:
        """The logarithms kept, oldest first, and that of the highest level ever held."""
        return {
            "recent": list(self._logarithms.values),
            "height": None if self._height == -math.inf else self._height,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._logarithms = Window(state["recent"][-self._window :])
        height = state["height"]
        self._height = self._highest(0) if height is None else height

    def values(self) -> list[float]:
        """The values kept, oldest first."""
        return list(map(math.exp, self._logarithms.values))

    def median(self) -> float:
        """The median of the values (the lower one of the middle two)."""
        return math.exp(self._logarithms.ordered[self._middle])

    def height(self) -> float:
        """The highest level ever held; 0 while there is none."""
        return math.exp(self._height)

    def held_lately(self, values: int) -> float:
        """The highest level held by the newest values."""
        return math.exp(self._highest(len(self) - values))

    def seen_lately(self, values: int) -> float:
        """The largest of the newest values."""
        return math.exp(max(self._logarithms.values[max(len(self) - values, 0) :], default=-math.inf))

    def spread(self) -> float:
        """The factor that one standard deviation, estimated from the MAD, makes up; at least 1."""
        middle = math.log(self.median())
        deviations = sorted(abs(logarithm - middle) for logarithm in self._logarithms.ordered)
        return math.exp(self._MAD_TO_SIGMA * deviations[self._middle])

    @property
    def _middle(self) -> int:
        return (len(self._logarithms) - 1) // 2

    def _highest(self, start: int) -> float:
        """The highest level held from there on, by its logarithm."""
        return self._held_in(self._logarithms.values[max(start, 0) :])

    def _held_in(self, logarithms: Sequence[float]) -> float:
        several = zip(*(logarithms[first:] for first in range(self._IN_A_ROW)), strict=False)
        return max(map(min, several), default=-math.inf)
