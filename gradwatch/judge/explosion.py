"""The rule on a gradient that is far above what it was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from gradwatch.blocks import BEFORE, Block
from gradwatch.judge.baseline import Baseline
from gradwatch.judge.rule import Finding
from gradwatch.records import Severity, StepRecord

__all__ = ["Explosion"]


class Explosion:
    """The norm before clipping stands far above its own baseline, or above an absolute limit.

    The baseline is the median of the optimizer's norms so far; it takes no value in while the rule fires, so
    that an explosion does not become the new normal. Where norms vary widely by themselves, five standard
    deviations of their logarithm, estimated from the MAD, must be exceeded too.

    The baseline looks back on 200 steps. A norm that comes back to where it was before them, as an agent's does
    with each new batch of experience, is a warning: training has survived it.

    Args:
        factor: times the baseline, in ``fires_after`` steps running.
        sudden_factor: times the baseline, in a single step.
        limit: an absolute norm that is too much at any time.
        warm_up: norms seen before the baseline counts.
        fires_after: steps running above ``factor`` before the alert.
        clears_after: steps running below it before the episode is over.
    """

    id = "explosion"
    severity: Severity = "critical"
    severities: tuple[Severity, ...] = ("critical", "warning")
    may_be_shortcut = True
    _SIGMAS = 5.0
    # Times the highest level before, up to which a norm has come back to it.
    _BACK = 3.0

    def __init__(
        self,
        *,
        factor: float = 10.0,
        sudden_factor: float = 100.0,
        limit: float = 1e8,
        warm_up: int = 20,
        fires_after: int = 3,
        clears_after: int = 20,
    ) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._factor = factor
        self._sudden_factor = sudden_factor
        self._limit = limit
        self._warm_up = warm_up
        self._baselines: dict[str, Baseline] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where the norm before clipping is too large; a norm of NaN or Inf tells nothing."""
        if not math.isfinite(record.norm_before):
            return None
        finding = self._find(record.optimizer, record.norm_before)
        return [] if finding is None else [finding]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first norm that is too large."""
        for index, norm in enumerate(block.norms(BEFORE)[start:].tolist(), start):
            finding = self._find(block.layout.optimizer, norm) if math.isfinite(norm) else None
            if finding is not None:
                return index, [finding]
        return len(block), ()

    def critical_above(self, optimizer: str) -> float:
        """The norm before clipping above which a step now would be told of as critical; Inf where none would."""
        baseline = self._baselines.get(optimizer)
        if baseline is None or len(baseline) < self._warm_up:
            return self._limit
        usual = baseline.median()
        above_usual: float = max(self._factor * usual, usual * baseline.spread() ** self._SIGMAS)
        return min(self._limit, max(above_usual, self._BACK * baseline.height()))

    def state_dict(self) -> dict[str, Any]:
        """The baselines by optimizer."""
        return {optimizer: baseline.state_dict() for optimizer, baseline in self._baselines.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        for optimizer, saved in state.items():
            self._baselines.setdefault(optimizer, Baseline()).load_state_dict(saved)

    def _find(self, optimizer: str, norm: float) -> Finding | None:
        """What is wrong with a finite norm; one with which nothing is goes into the baseline."""
        baseline = self._baselines.get(optimizer)
        if baseline is None:
            baseline = self._baselines[optimizer] = Baseline()
        if norm > self._limit:
            message = f"norm before clipping {norm:.3g}, above the limit of {self._limit:.3g}"
            return Finding(None, norm, self._limit, message, at_once=True)
        if len(baseline) >= self._warm_up and norm > self._factor * baseline.median():
            usual = baseline.median()
            if norm > usual * baseline.spread() ** self._SIGMAS:
                return self._finding(norm, usual, baseline.height())
        baseline.add(norm)
        return None

    def _finding(self, norm: float, usual: float, before: float) -> Finding:
        message = f"norm before clipping {norm:.3g}, {norm / usual:.3g} times the usual {usual:.3g}"
        severity: Severity = "critical"
        if norm <= self._BACK * before:
            message += f"; earlier in this run it was at {before:.3g}"
            severity = "warning"
        sudden = norm > self._sudden_factor * usual
        return Finding(None, norm, self._factor * usual, message, severity, at_once=sudden)
