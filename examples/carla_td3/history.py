"""What gradwatch wrote of a run, against the decisions of its agent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradwatch

__all__ = ["History", "Line"]


@dataclass(frozen=True)
class Line:
    """The norms of an optimizer, or of one of its modules: a decision, the norm before clipping and after it."""

    name: str
    points: list[tuple[int, float, float]]


class History:
    """Norms and alerts of a run's ``gradwatch.jsonl``.

    Args:
        folder: of the run.

    Raises:
        MissingExtraError: pandas is not installed.
        ArgumentError: there is no such file.
    """

    def __init__(self, folder: Path) -> None:
        frame = gradwatch.read(folder / "gradwatch.jsonl")
        self.alerts: list[dict[str, Any]] = frame.attrs["alerts"]
        # What a resumed run did again counts as the resumed one did it.
        steps = frame.dropna(subset=["loop_step"]).drop_duplicates(["optimizer", "step"], keep="last")
        self._decisions: dict[tuple[str, int], float] = steps.set_index(["optimizer", "step"])[
            "loop_step"
        ].to_dict()
        self.sides = {side: self._lines(steps[steps["optimizer"] == side], side) for side in ("actor", "critic")}

    def firing(self, decision: int) -> list[str]:
        """What fires after this decision, in a few words each, what is critical first."""
        active: dict[tuple[str, str, str | None], str] = {}
        for alert in self.alerts:
            if self._decisions.get((alert["optimizer"], alert["step"]), math.inf) > decision:
                continue
            place = (alert["rule"], alert["optimizer"], alert["module"])
            if alert["state"] == "resolved":
                active.pop(place, None)
                continue
            active[place] = (
                f"{alert['severity'].upper()} {alert['rule']} at {alert['module'] or alert['optimizer']}"
            )
            if alert["cause"]:
                active[place] += f": {alert['cause']['kind']} at {alert['cause']['where']}"
        return sorted(active.values(), key=lambda words: not words.startswith("CRITICAL"))

    def _lines(self, steps: Any, side: str) -> list[Line]:
        """Of the whole, then of its parts."""
        decisions = steps["loop_step"].astype(int).tolist()
        names = {side: ("norm_before", "norm_after")}
        names |= {name: (f"{name}.before", f"{name}.after") for name in (f"{side}_cnn", f"{side}_mlp")}
        return [
            Line(name, list(zip(decisions, steps[before].tolist(), steps[after].tolist(), strict=True)))
            for name, (before, after) in names.items()
        ]
