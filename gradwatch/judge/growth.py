"""The rule on norms that grow and grow, too slowly for a jump and without an end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from gradwatch.blocks import BEFORE, Block
from gradwatch.judge.rule import Finding
from gradwatch.records import Severity, StepRecord

__all__ = ["Growth"]

_BLOCKS = 5


class _Trend:
    """One optimizer: the logarithms of the norms of late, and what was made of them last."""

    def __init__(self, window: int) -> None:
        self.logarithms: deque[float] = deque(maxlen=window)
        self.unseen = 0
        # The medians of the newest block, look by look, and the highest of those that are older than the window.
        self.medians: deque[float] = deque()
        self.highest = -math.inf
        # Steps in which the norm doubles, and steps over which that was fitted.
        self.growth: tuple[float, int] | None = None


class Growth:
    """The norm before clipping grows without pause, and has doubled again and again.

    The window is cut into five blocks. Each block's median of the logarithm must be above that of the one before.
    The doubling time, fitted on the medians, must be under a fifth of the window, and the rise over ``doublings``
    and six times what the noise within the blocks explains. The norm must be at twice what it ever was before the
    window: what swings up and down does not count. All this is asked of the whole window, and of its newest
    quarter and half, which tell a fast growth early.

    Args:
        window: steps looked back on.
        doublings: how often the norm must have doubled from the first block to the last.
        stride: steps between two looks at the window.
        clears_after: steps running without growth before the episode is over.
    """

    id = "growth"
    severity: Severity = "warning"
    may_be_shortcut = True
    fires_after = 1

    _NOISE = 6.0

    def __init__(
        self, *, window: int = 100, doublings: float = 3.0, stride: int = 5, clears_after: int = 50
    ) -> None:
        self.clears_after = clears_after
        self._window = window
        self._doublings = doublings
        self._stride = stride
        self._trends: dict[str, _Trend] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where the norm before clipping grows; a norm of 0, NaN or Inf tells nothing."""
        norm = record.norm_before
        if not 0.0 < norm < math.inf:
            return None
        trend = self._taken(record.optimizer, norm)
        return [] if trend.growth is None else [self._finding(record, trend, *trend.growth)]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step at which the norm grows."""
        for index, norm in enumerate(block.norms(BEFORE)[start:].tolist(), start):
            if 0.0 < norm < math.inf:
                trend = self._taken(block.layout.optimizer, norm)
                if trend.growth is not None:
                    return index, [self._finding(block[index], trend, *trend.growth)]
        return len(block), ()

    def state_dict(self) -> dict[str, Any]:
        """The logarithms in each optimizer's window, and what was made of them last."""
        return {
            name: {
                "logarithms": list(trend.logarithms),
                "unseen": trend.unseen,
                "medians": list(trend.medians),
                "highest": None if trend.highest == -math.inf else trend.highest,
                "growth": trend.growth,
            }
            for name, trend in self._trends.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        for name, saved in state.items():
            trend = self._trends[name] = _Trend(self._window)
            trend.logarithms.extend(saved["logarithms"])
            trend.unseen = saved["unseen"]
            trend.medians.extend(saved["medians"])
            trend.highest = -math.inf if saved["highest"] is None else saved["highest"]
            trend.growth = None if saved["growth"] is None else (saved["growth"][0], saved["growth"][1])

    def _taken(self, optimizer: str, norm: float) -> _Trend:
        """The trend with one more norm, looked at anew after each stride."""
        trend = self._trends.get(optimizer)
        if trend is None:
            trend = self._trends[optimizer] = _Trend(self._window)
        trend.logarithms.append(math.log(norm))
        trend.unseen += 1
        if trend.unseen >= self._stride:
            trend.unseen = 0
            trend.growth = self._growth(trend)
        return trend

    def _growth(self, trend: _Trend) -> tuple[float, int] | None:
        """The growth over the newest quarter or half of the window, or else over the whole of it."""
        logarithms = list(trend.logarithms)
        newest = median(logarithms[-(self._window // _BLOCKS) :])
        trend.medians.append(newest)
        if len(trend.medians) > self._window // self._stride:
            trend.highest = max(trend.highest, trend.medians.popleft())
        if newest <= trend.highest + math.log(2.0):
            return None
        for steps in (self._window // 4, self._window // 2, self._window):
            if len(logarithms) >= steps:
                doubling = self._doubling_time(logarithms[-steps:])
                if doubling is not None:
                    return doubling, steps
        return None

    def _doubling_time(self, logarithms: Sequence[float]) -> float | None:
        size = len(logarithms) // _BLOCKS
        blocks = [logarithms[start : start + size] for start in range(0, _BLOCKS * size, size)]
        # Nearly always over at once: the newest block is no higher than the oldest was.
        middles = [median(block) for block in (blocks[0], blocks[-1])]
        rise = middles[1] - middles[0]
        if rise < self._doublings * math.log(2.0):
            return None
        middles[1:1] = [median(block) for block in blocks[1:-1]]
        if not all(later > earlier for earlier, later in pairwise(middles)):
            return None
        noise = median(abs(x - middle) for block, middle in zip(blocks, middles, strict=True) for x in block)
        # Of a median of n normal values, times the square root of 2 for the difference of two of them.
        if rise < self._NOISE * 1.4826 * noise * math.sqrt(math.pi / size):
            return None
        doubling = math.log(2.0) / (_slope(middles) / size)
        return doubling if doubling < len(logarithms) / _BLOCKS else None

    def _finding(self, record: StepRecord, trend: _Trend, doubling: float, steps: int) -> Finding:
        steps = min(steps, len(trend.logarithms))
        message = (
            f"the norm before clipping grows without pause: it doubles every {doubling:.3g} steps, and went from "
            f"{math.exp(trend.logarithms[-steps]):.3g} to {record.norm_before:.3g} in the last {steps}"
        )
        return Finding(None, doubling, steps / _BLOCKS, message)


def _slope(values: Sequence[float]) -> float:
    """The slope of the least-squares line through values at 0, 1, 2, ..."""
    middle = (len(values) - 1) / 2
    return sum((i - middle) * value for i, value in enumerate(values)) / sum(
        (i - middle) ** 2 for i in range(len(values))
    )
