"""The questions of the seed report, each answered from what this run measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from gradwatch import Alert, Cause, StepRecord

__all__ = ["Questions"]

LIMITS = {"actor": 1.0, "critic": 10.0}
# Relative: what torch's own float32 norm may be off by, see ``checklist.py``.
ROUNDING = 1e-3


class Questions:
    """A sink of gradwatch that answers at the end.

    The report saw a critic CNN of 20.25 under a limit of 10, an actor MLP of 0.0 and an actor loss of -7.5e12, and
    asked what each of them means.
    """

    def __init__(self) -> None:
        self._records: dict[str, list[StepRecord]] = {side: [] for side in LIMITS}
        self._alerts: list[Alert] = []
        self._sums: list[float] = []
        self._losses: list[float] = []

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Take records and alerts in; called by gradwatch."""
        for record in records:
            self._records[record.optimizer].append(record)
        self._alerts += alerts

    def close(self) -> None:
        """Nothing is held open."""

    def take(self, name: str, value: float) -> None:
        """Take one of the agent's own scalars in."""
        if name == "train/actor_loss":
            self._losses.append(value)
        elif name == "debug/actor_cnn_grad_norm_AFTER_clip_SUM_OF_NORMS":
            self._sums.append(value)

    def answers(self) -> list[tuple[str, str]]:
        """Question and answer, in the report's order."""
        return [
            ("Is clipping broken?", self._clipping()),
            ("Is the metric wrong?", self._metric()),
            ("Why is the actor's MLP 0.0?", self._silence()),
            ("Was it measured after the step?", self._moment()),
            ("Was it not updated every time?", self._delay()),
            ("Was it frozen or detached?", self._detached()),
            ("Why does the loss run away?", self._runaway()),
            ("What does a meter by clip_grad_norm_(inf) do?", infinite_meter()),
        ]

    def _clipping(self) -> str:
        parts = []
        for side, records in self._records.items():
            held = sum(record.norm_after <= LIMITS[side] * (1 + ROUNDING) for record in records)
            before = max((record.norm_before for record in records), default=math.nan)
            parts.append(
                f"{side}: at most {LIMITS[side]:g} after clipping in {held} of {len(records)} updates, up to "
                f"{before:.3g} before"
            )
        broken = any(alert.rule == "clip-broken" for alert in self._alerts)
        return f"{'Yes' if broken else 'No'}. {'; '.join(parts)}."

    def _metric(self) -> str:
        norms = [record.modules["actor_cnn"].norm_after for record in self._records["actor"]]
        ratios = [wrong / norm for wrong, norm in zip(self._sums, norms, strict=False) if norm]
        if not ratios:
            return "It was not logged in this run."
        return (
            f"Yes. It is a sum of the tensors' norms and not their norm: {statistics.median(ratios):.2f} times "
            f"too high for the actor's CNN (median of {len(ratios)}), up to {max(self._sums):.3g} where the norm "
            f"is at most {max(norms):.3g}."
        )

    def _silence(self) -> str:
        zero = self._cause("zero", "actor_mlp")
        if zero is None:
            return "It is not, in this run."
        alert, cause = zero
        silent = sum(record.modules["actor_mlp"].norm_after == 0.0 for record in self._records["actor"])
        around = next((a.cause for a in self._alerts if a.cause and a.cause.kind == "shortcut"), None)
        why = f", since the loss reaches {around.where} around it" if around else ""
        return (
            f"{cause.kind} at {cause.where}, told at update {alert.step}: exactly 0 in {silent} of "
            f"{len(self._records['actor'])}. Nothing pulls the policy back{why}."
        )

    def _moment(self) -> str:
        alive = sum(record.modules["actor_cnn"].norm_after > 0.0 for record in self._records["actor"])
        return (
            "No. Both norms are taken when the optimizer's step begins; the actor's CNN, measured at the "
            f"same moment, is above 0 in {alive} of {len(self._records['actor'])} updates."
        )

    def _delay(self) -> str:
        actor, critic = (len(self._records[side]) for side in LIMITS)
        return (
            f"It was updated in {actor} of {critic} critic updates, and has that many records: in between there "
            "is no value, and none is made up."
        )

    def _detached(self) -> str:
        missing = sum(bool(record.missing) for record in self._records["actor"])
        kinds = {alert.cause.kind for alert in self._alerts if alert.cause and alert.rule == "zero"}
        found = kinds & {"frozen", "detached", "no-grad", "unused", "not-in-optimizer"}
        if found or missing:
            return (
                f"Yes: {', '.join(sorted(found)) or 'gradients missing'} ({missing} updates without a gradient)."
            )
        was_zero = ": it was 0" if self._cause("zero", "actor_mlp") else ""
        return f"No. Every parameter got a gradient in all {len(self._records['actor'])} updates{was_zero}."

    def _runaway(self) -> str:
        late = np.array(self._losses[len(self._losses) // 2 :])
        if not len(late):
            return "No update was made."
        falls = len(late) > 1 and bool((late < 0).all())
        slope = float(np.polyfit(np.arange(len(late)), np.log2(-late), 1)[0]) if falls else 0.0
        if slope <= 0:
            return f"It does not, in this run: {late[-1]:.3g} at the end."
        told = self._cause("growth", None)
        cause = f", {told[1].kind} at {told[1].where}" if told else ""
        return (
            f"It doubles every {1 / slope:.0f} actor updates in the last half and is {late[-1]:.3g} at the end"
            f"{cause}: the CNN learns to make pictures look good to the Q heads, and nothing bounds that."
        )

    def _cause(self, rule: str, module: str | None) -> tuple[Alert, Cause] | None:
        """The first alert of the actor on it that has a cause."""
        for alert in self._alerts:
            if alert.cause and (alert.optimizer, alert.rule, alert.module) == ("actor", rule, module):
                return alert, alert.cause
        return None


def infinite_meter() -> str:
    """Tried out here and now: one finite gradient beside one that is not."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for parameter, gradient in zip(parameters, (1.0, math.inf), strict=True):
        parameter.grad = torch.tensor([gradient])
    clip_grad_norm_(parameters, math.inf)
    left: list[Any] = [parameter.grad.item() for parameter in parameters if parameter.grad is not None]
    return (
        f"It erases. Of the gradients 1 and inf it left {left[0]:g} and {left[1]:g} just now: what it was to "
        "measure is gone."
    )
