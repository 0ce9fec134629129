"""The rule on clipping that is always in force, and takes nearly everything."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradwatch.blocks import Block
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.judge.window import Window
from gradwatch.records import Severity, StepRecord
from gradwatch.shapes import COUNT, FLAG, NORM, Fields, Listed, Maybe, Named

__all__ = ["ClipSaturated"]


class _Ratios(Window):
    """The clip ratio of each step of late of one optimizer, infinite where clipping was not in force.

    Attributes:
        saturated: it was found to be saturated at the last look.
    """

    saturated = False


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

    @checked
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
        optimizer, ratios = block.layout.optimizer, block.clip_ratios
        several = [r if clipped else math.inf for r, (_, clipped) in zip(ratios, block.clipping, strict=True)]
        tells_all = not block.common.skipped and all(map(math.isfinite, ratios))
        if tells_all and self._all_go_on(optimizer, several[start:], as_long_as):
            return len(block), ()
        for index in range(start, len(block)):
            if block.rows[index].skipped or not math.isfinite(ratios[index]):
                continue
            taken = self._taken(optimizer, several[index])
            if taken.saturated != as_long_as:
                return index, [self._finding(taken)] if taken.saturated else []
        return len(block), ()

    def _all_go_on(self, optimizer: str, several: Sequence[float], as_long_as: bool) -> bool:
        """Take several ratios in, where it is as it was after each of them, whatever is forgotten meanwhile."""
        ratios, seen = self._ratios.get(optimizer), self._seen.get(optimizer, 0)
        if ratios is None:
            ratios = _Ratios()
        # What is looked back on grows when the window is full.
        window = self._window if seen >= self._window else self._early
        if ratios.saturated != as_long_as or seen < self._window <= seen + len(several):
            return False
        if not self._stays(ratios, sorted(several)):
            return False
        self._ratios[optimizer] = ratios
        self._seen[optimizer] = min(seen + len(several), self._window)
        ratios.add_all(several, window)
        return True

    def _stays(self, ratios: _Ratios, ordered: Sequence[float]) -> bool:
        """Whether further ratios, in order of size, can change nothing: a window holds no others than these."""
        limit, count = self._limit_of(ratios), len(ratios)
        low = bisect_left(ordered, limit)
        if not ratios.saturated:
            # Of so many, those of late among them, none but fewer than half may be low.
            return ratios.is_at_least((self._early - 1) // 2 - low, limit)
        low += bisect_left(ratios.ordered, limit) - len(ordered)
        in_force = bisect_left(ordered, math.inf) + bisect_left(ratios.ordered, math.inf) - len(ordered)
        # Of so many in a window, which never gets shorter, at least so many are low, and in force.
        return count >= self._early and low > (count - 1) // 2 and in_force > self._share * count

    def _limit_of(self, ratios: _Ratios) -> float:
        return self._ratio * (self._CLEARLY if ratios.saturated else 1.0)

    remembers = Named(Fields(seen=COUNT, ratios=Listed(Maybe(NORM)), saturated=FLAG))

    def state_dict(self) -> dict[str, Any]:
        """The ratios in each optimizer's window, None where clipping was not in force, and the steps seen."""
        return {
            name: {
                "seen": self._seen[name],
                "ratios": [None if r == math.inf else r for r in ratios.values],
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
        ordered, limit = ratios.ordered, self._limit_of(ratios)
        count = len(ordered)
        if count < self._early or ordered[(count - 1) // 2] >= limit:
            return False
        return bisect_left(ordered, math.inf) > self._share * count

    def _finding(self, ratios: _Ratios) -> Finding:
        ordered = ratios.ordered
        count, in_force, middle = len(ordered), bisect_left(ordered, math.inf), ordered[(len(ordered) - 1) // 2]
        message = (
            f"clipping was in force in {in_force} of the last {count} steps and left {100 * middle:.2g} % of the "
            "norm, in the median: the limit alone sets the size of each update, and hides what the norm does"
        )
        return Finding(None, middle, self._ratio, message)
