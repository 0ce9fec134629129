"""The rule on gradients that are there, and too small to teach anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradwatch.judge.rule import Finding
from gradwatch.records import Severity, StepRecord

__all__ = ["Vanishing"]


class Vanishing:
    """A module's gradient has all but vanished while the optimizer's has not.

    As training converges every norm falls, and a module that always had a small share of the whole falls below
    any limit in the end: that is none. A module counts whose share of the optimizer's norm is below ``share``,
    and below a tenth of what it usually was while its norm was above the limit.

    Args:
        limit: norm consumed below which it has vanished.
        share: share of the optimizer's norm above which it has not.
        fires_after: steps running before the alert.
        clears_after: steps running above the limit before the episode is over.
    """

    id = "vanishing"
    severity: Severity = "warning"

    # How fast the usual share is followed, and the part of it that is no loss.
    _FOLLOWING, _LOSS = 0.02, 0.1

    def __init__(
        self, *, limit: float = 1e-7, share: float = 0.01, fires_after: int = 5, clears_after: int = 5
    ) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._limit = limit
        self._share = share
        # The logarithm of the usual share, by optimizer and module.
        self._usual: dict[str, dict[str, float]] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding for each module whose gradient has vanished."""
        whole = record.norm_after
        if record.skipped or not whole < math.inf:
            return None
        findings: list[Finding] = []
        if not record.modules or whole < self._limit:
            return findings
        usual = self._usual.get(record.optimizer)
        if usual is None:
            usual = self._usual[record.optimizer] = {}
        for name, norms in record.modules.items():
            norm = norms[1]
            if norm >= self._limit:
                logarithm = math.log(norm / whole)
                before = usual.get(name, logarithm)
                usual[name] = before + self._FOLLOWING * (logarithm - before)
            elif 0.0 < norm < whole * self._share and self._has_lost(norm / whole, usual.get(name)):
                findings.append(self._finding(record, name, norm))
        return findings

    def state_dict(self) -> dict[str, Any]:
        """The logarithm of the usual share of each module, by optimizer."""
        return {optimizer: dict(usual) for optimizer, usual in self._usual.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._usual.update({optimizer: dict(usual) for optimizer, usual in state.items()})

    def _has_lost(self, share: float, usual: float | None) -> bool:
        return usual is None or share < self._LOSS * math.exp(usual)

    def _finding(self, record: StepRecord, module: str, norm: float) -> Finding:
        message = (
            f"the gradient of {module} has all but vanished: its norm is {norm:.3g}, where the optimizer consumes "
            f"{record.norm_after:.3g} in all"
        )
        return Finding(module, norm, self._limit, message)
