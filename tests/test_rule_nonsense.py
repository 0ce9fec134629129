"""A rule of a user's that finds nonsense, or fails, costs no record and no other verdict; it is counted, and told of."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.records import Alert, Cause, StepRecord
from gradwatch.rules import Finding, Zero
from gradwatch.sinks import Memory

FINE = Finding(None, 1.0, 0.0, "too much", at_once=True)
OTHERS = Alert("zero", "critical", "firing", "optimizer", "dead", 3, 0.0, 0.0, "of another rule")


def halfway() -> Iterator[Finding]:
    yield FINE
    raise ZeroDivisionError("of the test")


def recursing() -> Any:
    return recursing()


NONSENSE: dict[str, Any] = {
    "a number": lambda: 3,
    "a string": lambda: "too much",
    "strings": lambda: ["too much"],
    "nothing in a list": lambda: [None],
    "an alert of another rule": lambda: [OTHERS],
    "a class": lambda: [Finding],
    "one finding by itself": lambda: FINE,
    "a generator that raises halfway": halfway,
    "endless recursion": recursing,
    "a module that is a number": lambda: [Finding(3, 1.0, 0.0, "x")],  # type: ignore[arg-type]
    "a module that cannot be hashed": lambda: [Finding([], 1.0, 0.0, "x")],  # type: ignore[arg-type]
    "no message": lambda: [Finding(None, 1.0, 0.0, None)],  # type: ignore[arg-type]
    "no value": lambda: [Finding(None, None, 0.0, "x")],  # type: ignore[arg-type]
    "a value in words": lambda: [Finding(None, "3", 0.0, "x")],  # type: ignore[arg-type]
    "a value without end": lambda: [Finding(None, 10**10_000, 0.0, "x")],
    "several values": lambda: [Finding(None, np.zeros(3), 0.0, "x")],  # type: ignore[arg-type]
    "a severity of its own": lambda: [Finding(None, 1.0, 0.0, "x", "disaster")],  # type: ignore[arg-type]
    "a cause in words": lambda: [Finding(None, 1.0, 0.0, "x", cause="bad luck")],  # type: ignore[arg-type]
    "a cause without evidence": lambda: [Finding(None, 1.0, 0.0, "x", cause=Cause("zeroed", "x", None, ""))],  # type: ignore[arg-type]
    "evidence that is none": lambda: [Finding(None, 1.0, 0.0, "x", cause=Cause("zeroed", "x", {"a": []}, ""))],  # type: ignore[dict-item]
    "a cause at no place": lambda: [Finding(None, 1.0, 0.0, "x", cause=Cause("zeroed", None, {}, ""))],  # type: ignore[arg-type]
}  # fmt: skip


class Own:
    id, severity, fires_after, clears_after = "own", "warning", 1, 1
    wants_cause = may_be_shortcut = True

    def __init__(self, finds: Any, at: int = 10) -> None:
        self._finds = finds
        self._at = at

    def look(self, record: StepRecord) -> Any:
        return self._finds() if record.step >= self._at else []


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.dead = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).sum() + self.dead(x).sum() * 0.0


def trained(rule: Any, steps: int = 40) -> tuple[gradwatch.Watch, Memory]:
    torch.manual_seed(0)
    net, memory = Net(), Memory()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradwatch.track(optimizer, net, rules=[rule, Zero()], sinks=[memory]) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.ones(2)).backward()
            optimizer.step()
    return watch, memory


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_costs_the_rule_alone(nonsense: str, caplog: pytest.LogCaptureFixture) -> None:
    watch, memory = trained(Own(NONSENSE[nonsense]))
    assert [record.step for record in memory.records] == list(range(1, 41))
    assert [record.step for record in watch.history] == list(range(1, 41))
    assert [(alert.rule, alert.module) for alert in watch.active] == [("zero", "dead")]
    assert {alert.rule for alert in watch.alerts} == {"zero"}
    assert watch.health().internal_errors == 1
    failed = [entry for entry in caplog.records if "is left out from now on" in entry.getMessage()]
    assert [entry.levelno for entry in failed] == [logging.ERROR]


@pytest.mark.parametrize("number", [np.float32(2.5), np.float64(2.5), np.int64(2), torch.tensor(2.5), True])
def test_numbers_of_others_are_numbers(number: Any) -> None:
    why = Cause("zeroed", "x", {"value": number, "why": "told"}, "")
    watch, memory = trained(Own(lambda: [Finding(None, number, number, "x", cause=why)]))
    (alert,) = [alert for alert in memory.alerts if alert.rule == "own"]
    assert alert.value == alert.threshold == float(number)
    assert alert.cause is not None
    assert isinstance(alert.cause.evidence["value"], (float, int))
    assert watch.health().internal_errors == 0


def test_what_is_found_at_a_place_that_is_none_is_told_all_the_same() -> None:
    watch, _ = trained(Own(lambda: [Finding("nowhere.at.all", math.nan, math.inf, "x")]))
    assert ("own", "nowhere.at.all") in {(alert.rule, alert.module) for alert in watch.active}
    assert watch.health().internal_errors == 0


class Stands(Own):
    """Looks over blocks, and never goes on."""

    def __init__(self, index: Any) -> None:
        super().__init__(list)
        self._index = index

    def look_over(self, block: Any, start: int) -> Any:
        return self._index, ()


@pytest.mark.parametrize("index", [-1, 10**9, None, "x", math.nan])
def test_a_rule_that_does_not_go_on_holds_up_nobody(index: Any) -> None:
    watch, memory = trained(Stands(index))
    assert len(memory.records) == 40
    assert watch.health().internal_errors == 1


def test_what_a_rule_has_begun_ends_when_it_fails() -> None:
    def finds() -> list[Finding]:
        calls.append(1)
        if len(calls) > 5:
            raise ValueError("of the test")
        return [FINE]

    calls: list[int] = []
    watch, _ = trained(Own(finds))
    told = [
        (alert.state, alert.step) for alert in watch.alerts if alert.rule == "own" and alert.state != "explained"
    ]
    assert told == [("firing", 10), ("resolved", 15)]
    assert "own" not in {alert.rule for alert in watch.active}
