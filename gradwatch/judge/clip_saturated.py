"""The rule on clipping that is always in force, and takes nearly everything."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from gradwatch.blocks import AFTER, BEFORE, Block
from gradwatch.judge.rule import Finding
from gradwatch.records import Severity, StepRecord, clip_ratio
from gradwatch.shapes import COUNT, FLAG, NORM, Fields, Listed, Maybe, Named

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
    may_be_shortcut = True
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
        ratios = self._taken(record.optimizer, record.clip_ratio if record.clipped else math.inf)
        return [self._finding(ratios)] if ratios.saturated else []

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step at which clipping is saturated."""
        return self._go_on(block, start, as_long_as=False)

    def look_on(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step at which it is not any more."""
        return self._go_on(block, start, as_long_as=True)

    def _go_on(self, block: Block, start: int, as_long_as: bool) -> tuple[int, Iterable[Finding]]:
        """Go on as long as it is saturated, or as long as it is not."""
        before, after = (block.norms(side)[start:].tolist() for side in (BEFORE, AFTER))
        for index, (was, left) in enumerate(zip(before, after, strict=True), start):
            ratio = clip_ratio(was, left)
            if block.rows[index].skipped or not math.isfinite(ratio):
                continue
            ratios = self._taken(block.layout.optimizer, ratio if block.clipping[index][1] else math.inf)
            if ratios.saturated != as_long_as:
                return index, [self._finding(ratios)] if ratios.saturated else []
        return len(block), ()

    remembers = Named(Fields(seen=COUNT, ratios=Listed(Maybe(NORM)), saturated=FLAG))

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
        self._seen, self._ratios = {}, {}
        for name, saved in state.items():
            self._seen[name] = saved["seen"]
            ratios = self._ratios[name] = _Ratios()
            for ratio in saved["ratios"]:
                ratios.add(math.inf if ratio is None else ratio, self._window)
            ratios.saturated = saved["saturated"]

    def _taken(self, optimizer: str, ratio: float) -> _Ratios:
        """The ratios with one more, and whether they are saturated now."""
        ratios = self._ratios.get(optimizer)
        if ratios is None:
            ratios = self._ratios[optimizer] = _Ratios()
        seen = self._seen[optimizer] = min(self._seen.get(optimizer, 0) + 1, self._window)
        ratios.add(ratio, self._window if seen == self._window else self._early)
        ratios.saturated = self._is_saturated(ratios)
        return ratios

    def _is_saturated(self, ratios: _Ratios) -> bool:
        ordered, limit = ratios.ordered, self._ratio * (self._CLEARLY if ratios.saturated else 1.0)
        count = len(ordered)
        if count < self._early or ordered[(count - 1) // 2] >= limit:
            return False
        return bisect_left(ordered, math.inf) > self._share * count

    def _finding(self, ratios: _Ratios) -> Finding:
        ordered = ratios.ordered
        count, in_force, middle = len(ordered), bisect_left(ordered, math.inf), ordered[(len(ordered) - 1) // 2]
        message = (
            f"clipping was in force in {in_force} of the last {count} steps and left next to nothing of the norm: "
            "the limit alone sets the size of each update, and hides what the norm does"
        )
        return Finding(None, middle, self._ratio, message)
