"""What a norm is held against: what is usual, and what training has survived."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from gradwatch.judge.baseline import Baseline

__all__ = ["Level"]


class Level:
    """Where one optimizer's norm stands: what is usual, and the explosion that goes on.

    Args:
        fires_after: steps running that make an alert of it.

    Attributes:
        baseline: the usual norms.
        row: the norms too large, of the last steps running.
        peak: how high the explosion that goes on has been, as far as that was enough for an alert; 0 without one.
        calm_steps: steps since the last norm that was too large.
    """

    def __init__(self, fires_after: int) -> None:
        self.baseline = Baseline()
        self.row: deque[float] = deque(maxlen=fires_after)
        self.peak = 0.0
        self.calm_steps = 0

    def excess(self, norm: float, at_once: bool) -> None:
        """A norm that is too large, and that the run has not been at before."""
        self.row.append(norm)
        held = min(self.row) if len(self.row) == self.row.maxlen else 0.0
        self.peak = max(self.peak, norm if at_once else held)
        self.calm_steps = 0

    def calm(self, norm: float, enough: int) -> None:
        """A usual norm; after enough of them an explosion is over."""
        self.baseline.add(norm)
        self.row.clear()
        self.calm_steps += 1
        if self.peak and self.calm_steps >= enough:
            self.baseline.survived(self.peak)
            self.peak = 0.0

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values."""
        explosion = {"row": list(self.row), "peak": self.peak, "calm_steps": self.calm_steps}
        return {**self.baseline.state_dict(), **explosion}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.baseline.load_state_dict(state)
        self.row.extend(state.get("row", ()))
        self.peak, self.calm_steps = state.get("peak", 0.0), state.get("calm_steps", 0)
