"""The checklist of the seed report, filled in with the worst value that was measured for each line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from examples.carla_td3.agent import ACTOR_LIMIT, CRITIC_LIMIT
from gradwatch import Alert, StepRecord

__all__ = ["Checklist", "Line"]

LIMITS = {"actor": ACTOR_LIMIT, "critic": CRITIC_LIMIT}
TOLERANCE = 1e-5
LOWEST_LOSS = -1000.0


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
    """A sink of gradwatch that keeps the worst of what passes by, and nothing else."""

    def __init__(self) -> None:
        self._over = {side: Worst() for side in LIMITS}
        self._after = {side: Worst() for side in LIMITS}
        self._ratio_low = {side: Worst() for side in LIMITS}
        self._ratio_high = {side: Worst() for side in LIMITS}
        self._mlp_low = {side: Worst() for side in LIMITS}
        self._loss_low = Worst()
        self._criticals: list[str] = []

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
        self._loss_low.least(loss)

    def lines(self) -> list[Line]:
        """The seed's lines, in its order."""
        return [
            *(self._clip_line(side) for side in LIMITS),
            *(self._mlp_line(side) for side in LIMITS),
            *(self._ratio_line(side) for side in LIMITS),
            self._alert_line(),
            Line(f"actor loss > {LOWEST_LOSS:g}", f"lowest {self._loss_low}", self._loss_low.value > LOWEST_LOSS),
        ]

    def _take(self, record: StepRecord) -> None:
        side = record.optimizer
        self._after[side].most(record.norm_after)
        self._over[side].most(record.norm_after / (LIMITS[side] * _torch_error(record)))
        self._ratio_low[side].least(record.clip_ratio)
        self._ratio_high[side].most(record.clip_ratio)
        self._mlp_low[side].least(record.modules[f"{side}_mlp"].norm_after)

    def _clip_line(self, side: str) -> Line:
        holds = self._over[side].value <= 1 + TOLERANCE
        return Line(f"{side} norm AFTER clipping <= {LIMITS[side]:g}", f"highest {self._after[side]}", holds)

    def _mlp_line(self, side: str) -> Line:
        low = self._mlp_low[side]
        return Line(f"{side} MLP norm AFTER clipping > 0", f"lowest {low}", low.value > 0)

    def _ratio_line(self, side: str) -> Line:
        return Line(f"{side} clip ratio", f"{self._ratio_low[side]} to {self._ratio_high[side]}", None)

    def _alert_line(self) -> Line:
        kinds = ", ".join(dict.fromkeys(self._criticals))
        measured = f"{len(self._criticals)} ({kinds})" if kinds else "0"
        return Line("critical alerts = 0", measured, not self._criticals)

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
        self._seen = False

    def most(self, value: float) -> None:
        self._keep(value, self.value < value)

    def least(self, value: float) -> None:
        self._keep(value, self.value > value)

    def _keep(self, value: float, is_worse: bool) -> None:
        if not self._seen or is_worse or math.isnan(value):
            self.value, self._seen = value, True

    def __str__(self) -> str:
        return f"{self.value:.7g}" if self._seen else "no update"


def _torch_error(record: StepRecord) -> float:
    """How far torch's own norm, summed in float32, was too low: the clipped norm is too high by as much.

    That is a matter of rounding, up to about 1e-4 here, and no fault of the clipping: 1.0 where it was not low.
    """
    clip = record.clips[-1] if record.clips else None
    if clip is None or not clip.norm_returned or clip.scope_before is None:
        return 1.0
    return min(max(1.0, clip.scope_before / clip.norm_returned), 1.001)
