"""The rule on norms that grow and grow, too slowly for a jump and without an end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from gradwatch.blocks import BEFORE, Block
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.records import Severity, StepRecord
from gradwatch.shapes import COUNT, LOGARITHM, NORM, Fields, Listed, Maybe, Named, Row

__all__ = ["Growth"]

_BLOCKS = 5


class _Growth(NamedTuple):
    """A growth that was found.

    Attributes:
        doubling: steps in which the norm doubles.
        steps: over which that was fitted.
        begin: the median norm of the first block of them.
        end: that of the last.
    """

    doubling: float
    steps: int
    begin: float
    end: float


class _Trend:
    """One optimizer: the logarithms of the norms of late, and what was made of them last."""

    def __init__(self, window: int) -> None:
        self.logarithms: deque[float] = deque(maxlen=window)
        self.unseen = 0
        # The medians of the newest block, look by look, and the highest of those that are older than the window.
        self.medians: deque[float] = deque()
        self.highest = -math.inf
        self.growth: _Growth | None = None
        # The fitted norm at which what was found last had begun.
        self.begin = math.nan


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

    # The share of an even rise that each block has at least.
    _NO_PAUSE = 0.25

    @checked
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
        trend = self._trends.setdefault(record.optimizer, _Trend(self._window))
        self._take(trend, [math.log(norm)])
        return [] if trend.growth is None else [self._finding(trend.growth)]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step at which the norm grows."""
        optimizer, logarithms, length = block.layout.optimizer, block.logarithms, len(block)
        trend = self._trends.get(optimizer) or _Trend(self._window)
        index = start
        while index < length:
            # What is found changes with a look alone; as long as something is, each step has a finding.
            # A state may be of a rule with a longer stride, whose next look is overdue.
            steps = 1 if trend.growth is not None else max(self._stride - trend.unseen, 1)
            if logarithms is None:
                some = [math.log(n) for n in block.wholes[BEFORE][index : index + steps] if 0.0 < n < math.inf]
            else:
                some = logarithms[index : index + steps]
            index += steps
            if some:
                self._trends[optimizer] = trend
                self._take(trend, some)
                if trend.growth is not None:
                    return index - 1, [self._finding(trend.growth)]
        return length, ()

    remembers = Named(
        Fields(
            logarithms=Listed(LOGARITHM),
            unseen=COUNT,
            medians=Listed(LOGARITHM),
            highest=Maybe(LOGARITHM),
            growth=Maybe(Row(NORM, COUNT, NORM, NORM)),
            begin=Maybe(NORM),
        )
    )

    def state_dict(self) -> dict[str, Any]:
        """The logarithms in each optimizer's window, and what was made of them last."""
        return {
            name: {
                "logarithms": list(trend.logarithms),
                "unseen": trend.unseen,
                "medians": list(trend.medians),
                "highest": None if trend.highest == -math.inf else trend.highest,
                "growth": None if trend.growth is None else list(trend.growth),
                "begin": None if math.isnan(trend.begin) else trend.begin,
            }
            for name, trend in self._trends.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._trends = {}
        for name, saved in state.items():
            trend = self._trends[name] = _Trend(self._window)
            trend.logarithms.extend(saved["logarithms"])
            trend.unseen = saved["unseen"]
            trend.medians.extend(saved["medians"])
            trend.highest = -math.inf if saved["highest"] is None else saved["highest"]
            trend.growth = None if saved["growth"] is None else _Growth(*saved["growth"])
            trend.begin = math.nan if saved["begin"] is None else saved["begin"]

    def ended(self, optimizer: str) -> str:
        """At which level the norm has stopped growing, where it has not come back down."""
        trend = self._trends.get(optimizer)
        if trend is None or not trend.medians:
            return ""
        now = math.exp(trend.medians[-1])
        # Grown by less than half of what is asked of a growth, in doublings.
        if not now > 2.0 ** (self._doublings / 2) * trend.begin:
            return ""
        return f"the norm no longer grows, and stays at {now:.3g}, where it was {trend.begin:.3g}"

    def _take(self, trend: _Trend, logarithms: Sequence[float]) -> None:
        """Take norms in, no more than are wanted for the next look, which comes after each stride."""
        trend.logarithms.extend(logarithms)
        trend.unseen += len(logarithms)
        if trend.unseen >= self._stride:
            trend.unseen = 0
            growth = self._growth(trend)
            if growth is not None and trend.growth is None:
                trend.begin = growth.begin
            trend.growth = growth

    def _growth(self, trend: _Trend) -> _Growth | None:
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
                growth = self._fitted(logarithms[-steps:])
                if growth is not None:
                    return growth
        return None

    def _fitted(self, logarithms: Sequence[float]) -> _Growth | None:
        size = len(logarithms) // _BLOCKS
        blocks = [logarithms[start : start + size] for start in range(0, _BLOCKS * size, size)]
        # Nearly always over at once: the newest block is no higher than the oldest was.
        middles = [median(block) for block in (blocks[0], blocks[-1])]
        rise = middles[1] - middles[0]
        if rise < self._doublings * math.log(2.0):
            return None
        middles[1:1] = [median(block) for block in blocks[1:-1]]
        # A jump between two levels is no growth: that has no block in which it pauses.
        least = self._NO_PAUSE * rise / (_BLOCKS - 1)
        if not all(later - earlier > least for earlier, later in pairwise(middles)):
            return None
        noise = median(abs(x - middle) for block, middle in zip(blocks, middles, strict=True) for x in block)
        # Of a median of n normal values, times the square root of 2 for the difference of two of them.
        if rise < self._NOISE * 1.4826 * noise * math.sqrt(math.pi / size):
            return None
        slope, steps = _slope(middles) / size, len(logarithms)
        doubling = math.log(2.0) / slope
        if not doubling < steps / _BLOCKS:
            return None
        return _Growth(doubling, steps, math.exp(middles[0]), math.exp(middles[-1]))

    def _finding(self, growth: _Growth) -> Finding:
        message = (
            f"the norm before clipping grows without pause: it doubles every {growth.doubling:.3g} steps. It went "
            f"from {growth.begin:.3g} to {growth.end:.3g}, in the median"
        )
        return Finding(None, growth.doubling, growth.steps / _BLOCKS, message)


def _slope(values: Sequence[float]) -> float:
    """The slope of the least-squares line through values at 0, 1, 2, ..."""
    middle = (len(values) - 1) / 2
    return sum((i - middle) * value for i, value in enumerate(values)) / sum(
        (i - middle) ** 2 for i in range(len(values))
    )
