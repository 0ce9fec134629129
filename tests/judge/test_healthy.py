"""Nothing critical where nothing is wrong, over 60,000 steps; and the warnings that remain, by name."""

from __future__ import annotations

from collections import Counter

import pytest

from gradwatch.judge.judge import Judge
from gradwatch.records import Alert
from gradwatch.rules import default_rules
from tests.judge.healthy import HEALTHY, heads_drawn, records

STEPS = 3000

# Each is argued in docs/rules.md.
WARNINGS = {
    # Every norm is exactly 0 from some step on: nothing is learned any more.
    "to exactly 0": Counter({("zero", "warning"): 2}),
    # No backward had reached the module in the first steps; it is over when one does.
    "auxiliary loss": Counter({("zero", "warning"): 1}),
    # An agent's norm comes back to where it was some batches of experience ago; in the first of them its limit left
    # less than a hundredth.
    # It does grow; where it stops, that is said.
    "leaving a plateau": Counter({("growth", "warning"): 1}),
    "rollouts": Counter({("explosion", "warning"): 1, ("clip-saturated", "warning"): 1}),
}


def alerts_of(name: str, seed: int) -> list[Alert]:
    loop, limit = HEALTHY[name]
    judge = Judge(default_rules())
    return [alert for made in records(loop(seed), limit, STEPS) for alert in judge.judge(made)]


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_loops_raise_nothing_critical(name: str) -> None:
    firing = [alert for alert in alerts_of(name, seed=1) if alert.state == "firing"]
    assert [alert for alert in firing if alert.severity == "critical"] == []
    assert Counter((alert.rule, alert.severity) for alert in firing) == WARNINGS.get(name, Counter())


def test_a_head_that_is_not_drawn_in_the_first_steps_is_a_warning_that_ends() -> None:
    # With this seed the same head comes up in the first three steps: nothing tells the others from dead ones.
    judge = Judge(default_rules())
    told = [alert for made in records(heads_drawn(8), None, STEPS) for alert in judge.judge(made)]
    assert {(alert.severity, alert.state) for alert in told} == {("warning", "firing"), ("warning", "resolved")}
    assert judge.active == []


def test_one_amp_skip_at_the_start_is_a_warning_that_ends() -> None:
    judge = Judge(default_rules())
    told = []
    for made in records(HEALTHY["steady"][0](1), 10.0, 100):
        skipped = {"skipped": True, "nonfinite": ("body.weight",), "loss_scale": 65536.0} if made.step == 1 else {}
        told += judge.judge(_with(made, **skipped))
    assert [(a.rule, a.severity, a.state, a.step) for a in told] == [
        ("nonfinite", "warning", "firing", 1),
        ("nonfinite", "warning", "resolved", 11),
    ]


def _with(made: object, **other: object) -> object:
    from dataclasses import replace

    return replace(made, **other)  # type: ignore[type-var]
