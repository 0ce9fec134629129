"""Two ranks that should consume one gradient: how far apart their norms may be, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwatch.judge.diverged import Diverged
from gradwatch.judge.judge import Judge
from gradwatch.records import Alert, RankNorms
from tests.made_up import record

EPSILON = 2.0**-23


def told(*apart: float | None) -> list[Alert]:
    """What is said where the norms of two ranks are so many machine epsilons apart; None: none were compared."""
    judge, alerts = Judge([Diverged()]), []
    for step, by in enumerate(apart, 1):
        both = None if by is None else RankNorms(step, 1, 3.0, 3.0 * (1.0 + by * EPSILON), EPSILON)
        alerts += judge.judge(replace(record(step, 3.0), compared=both))
    return alerts


def test_it_fires_at_the_third_comparison_and_ends_with_the_third_without() -> None:
    alerts = told(100.0, 100.0, 100.0, 100.0, 0.0, 0.0, 0.0)
    assert [(alert.state, alert.severity, alert.step) for alert in alerts] == [
        ("firing", "critical", 3),
        ("resolved", "critical", 7),
    ]
    assert "rank 1" in alerts[0].message


@pytest.mark.parametrize("by", [0.0, 1.0, 7.0, -7.0])
def test_rounding_is_no_difference(by: float) -> None:
    assert told(*[by] * 10) == []


def test_steps_without_a_comparison_count_for_nothing() -> None:
    assert [alert.step for alert in told(100.0, None, 100.0, None, None, 100.0)] == [6]
    assert told(100.0, 100.0, 0.0, 100.0, 100.0) == []
