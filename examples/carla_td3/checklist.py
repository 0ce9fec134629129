"""The checklist of the seed report, filled in with the worst value that was measured for each line.

The report's own lines are about gradients, and a policy that is one constant action passes them all. The last
three ask what the gradients are for: whether the policy answers to what it sees, and whether it drives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from examples.carla_td3.evaluation import Evaluation
from gradwatch import Alert, StepRecord

__all__ = ["Checklist", "Line"]

SIDES = ("actor", "critic")
TOLERANCE = 1e-5
LOWEST_LOSS = -1000.0
# A tenth of what pure pursuit's steering varies by over the same states: see the README.
LEAST_SPREAD = 0.01
# Where more than half sit at the ends, tanh passes on less than a tenth of most gradients.
MOST_SATURATED = 0.5


@dataclass(frozen=True)
class Line:
    """One line: what is asked for, what was measured, and whether it holds; None is for information only."""

    what: str
    measured: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        return "seen" if self.holds is None else "pass" if self.holds else "FAIL"


class Checklist:
    """A sink of gradwatch that keeps the worst of what passes by, and nothing else.

    Args:
        actor_limit: of the actor's norm after clipping; 0 where it is not clipped.
        critic_limit: of the critic's.
    """

    def __init__(self, actor_limit: float, critic_limit: float) -> None:
        self._limits = {"actor": actor_limit, "critic": critic_limit}
        kinds = ("over", "after", "ratio_low", "ratio_high", "mlp_low")
        self._worst = {f"{side} {kind}": Worst() for side in SIDES for kind in kinds}
        self._worst["loss"] = Worst()
        self._criticals: list[str] = []
        self._route: dict[str, float] = {}
        self._policy: tuple[float, float] | None = None

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Take records and alerts in; called by gradwatch."""
        for record in records:
            self._take(record)
        for alert in alerts:
            if alert.severity == "critical" and alert.state == "firing":
                self._criticals.append(f"{alert.rule} at {alert.module or alert.optimizer}")

    def close(self) -> None:
        """Nothing is held open."""

    def take_actor_loss(self, loss: float) -> None:
        """Take one actor loss in; called by the training loop."""
        self._worst["loss"].least(loss)

    def take_evaluation(self, driver: str, found: Evaluation) -> None:
        """Take in how a driver did: ``untrained``, ``trained``, of which the last counts, or ``straight on``."""
        self._route[driver] = found.route
        if driver == "trained":
            self._policy = (found.spread, found.saturated)

    def lines(self) -> list[Line]:
        """The seed's lines, in its order, and those of the policy."""
        loss = self._worst["loss"]
        return [
            *(self._clip_line(side) for side in SIDES if self._limits[side]),
            *(self._mlp_line(side) for side in SIDES),
            *(self._ratio_line(side) for side in SIDES),
            self._alert_line(),
            Line(f"actor loss > {LOWEST_LOSS:g}", f"lowest {loss}", loss.value > LOWEST_LOSS),
            *self._policy_lines(),
        ]

    @property
    def holds(self) -> bool:
        """Whether no line fails."""
        return all(line.holds is not False for line in self.lines())

    def state_dict(self) -> dict[str, Any]:
        worst = {name: (worst.value, worst.seen) for name, worst in self._worst.items()}
        return {"worst": worst, "criticals": self._criticals, "route": self._route, "policy": self._policy}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, (value, seen) in state["worst"].items():
            self._worst[name].value, self._worst[name].seen = value, seen
        self._criticals, self._route, self._policy = state["criticals"], state["route"], state["policy"]

    def _take(self, record: StepRecord) -> None:
        side = record.optimizer
        self._worst[f"{side} after"].most(record.norm_after)
        if self._limits[side]:
            self._worst[f"{side} over"].most(record.norm_after / (self._limits[side] * _torch_error(record)))
        self._worst[f"{side} ratio_low"].least(record.clip_ratio)
        self._worst[f"{side} ratio_high"].most(record.clip_ratio)
        self._worst[f"{side} mlp_low"].least(record.modules[f"{side}_mlp"].norm_after)

    def _clip_line(self, side: str) -> Line:
        holds = self._worst[f"{side} over"].value <= 1 + TOLERANCE
        after = self._worst[f"{side} after"]
        return Line(f"{side} norm AFTER clipping <= {self._limits[side]:g}", f"highest {after}", holds)

    def _mlp_line(self, side: str) -> Line:
        low = self._worst[f"{side} mlp_low"]
        return Line(f"{side} MLP norm AFTER clipping > 0", f"lowest {low}", low.value > 0)

    def _ratio_line(self, side: str) -> Line:
        low, high = self._worst[f"{side} ratio_low"], self._worst[f"{side} ratio_high"]
        return Line(f"{side} clip ratio", f"{low} to {high}", None)

    def _alert_line(self) -> Line:
        kinds = ", ".join(dict.fromkeys(self._criticals))
        measured = f"{len(self._criticals)} ({kinds})" if kinds else "0"
        return Line("critical alerts = 0", measured, not self._criticals)

    def _policy_lines(self) -> list[Line]:
        spread, saturated = self._policy or (math.nan, math.nan)
        trained = self._route.get("trained", math.nan)
        others = {name: route for name, route in self._route.items() if name != "trained"}
        beside = "".join(f", {name} {route:.1%}" for name, route in others.items())
        return [
            Line(f"actions spread over states >= {LEAST_SPREAD:g}", f"{spread:.3g}", spread >= LEAST_SPREAD),
            Line(f"saturated actions <= {MOST_SATURATED:.0%}", f"{saturated:.0%}", saturated <= MOST_SATURATED),
            Line(
                "route after training > " + " and ".join(others or ["before"]),
                f"{trained:.1%}{beside}",
                all(trained > route for route in others.values()) and trained > 0,
            ),
        ]

    def table(self) -> Table:
        """The lines as a table; the verdict is a word, its colour only repeats it."""
        table = Table(title="checklist of the gradient clipping report", title_justify="left")
        for name in ("asked for", "measured", "verdict"):
            table.add_column(name, overflow="fold")
        styles = {"pass": "green", "FAIL": "bold red", "seen": ""}
        for line in self.lines():
            table.add_row(line.what, line.measured, Text(line.verdict, style=styles[line.verdict]))
        return table


class Worst:
    """The worst of the values shown to it; NaN, which compares with nothing, is worse than all and stays."""

    def __init__(self) -> None:
        self.value = math.nan
        self.seen = False

    def most(self, value: float) -> None:
        self._keep(value, self.value < value)

    def least(self, value: float) -> None:
        self._keep(value, self.value > value)

    def _keep(self, value: float, is_worse: bool) -> None:
        if not self.seen or is_worse or math.isnan(value):
            self.value, self.seen = value, True

    def __str__(self) -> str:
        return f"{self.value:.7g}" if self.seen else "no update"


def _torch_error(record: StepRecord) -> float:
    """How far torch's own norm, summed in float32, was too low: the clipped norm is too high by as much.

    That is a matter of rounding, up to about 1e-4 here, and no fault of the clipping: 1.0 where it was not low.
    """
    clip = record.clips[-1] if record.clips else None
    if clip is None or not clip.norm_returned or clip.scope_before is None:
        return 1.0
    return min(max(1.0, clip.scope_before / clip.norm_returned), 1.001)
