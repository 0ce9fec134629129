"""Rules on whose gradient a step consumes."""

from __future__ import annotations

from typing import Any

from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.records import Alert, GroupNorms, StepRecord
from gradwatch.rules import Leaked, Stale
from tests.made_up import record


def alerts(rule: Rule, *records: StepRecord) -> list[Alert]:
    judge = Judge([rule])
    return [alert for made in records for alert in judge.judge(made)]


def names(*pairs: tuple[float, float]) -> dict[str, GroupNorms]:
    return {f"mlp.{i}": GroupNorms(*pair) for i, pair in enumerate(pairs)}


def old(step: int, *pairs: tuple[float, float], **other: Any) -> StepRecord:
    values = {"parameters": names(*pairs), "stale": ("mlp.0",), "unwritten": ("mlp.0",), "backward_passes": 0}
    return record(step, **{**values, **other})


def test_stale_fires_at_once_with_its_cause() -> None:
    (alert,) = alerts(Stale(), record(1, parameters=names((3.0, 3.0))), old(2, (3.0, 3.0), (1.0, 1.0)))
    assert (alert.severity, alert.step, alert.value, alert.module) == ("critical", 2, 3.0, None)
    assert alert.cause is not None
    assert (alert.cause.kind, alert.cause.where) == ("stale", "mlp")
    assert alert.cause.evidence == {"parameters": 1, "norm": 3.0, "backward_passes": 0}
    assert "no backward pass has written mlp.0 since" in alert.message


def test_a_gradient_whose_norm_has_changed_was_written_somehow() -> None:
    # As by ``p.grad.data.copy_``, which leaves no other trace.
    before = record(1, parameters=names((3.0, 3.0)))
    assert alerts(Stale(), before, old(2, (2.0, 2.0))) == []
    # Where the step before was not measured, that is not known.
    assert len(alerts(Stale(), before, old(3, (2.0, 2.0)))) == 1
    assert len(alerts(Stale(), old(1, (2.0, 2.0)))) == 1


def test_a_stale_gradient_that_is_clipped_again_is_still_stale() -> None:
    before = record(1, parameters=names((3.0, 1.0)))
    (alert,) = alerts(Stale(), before, old(2, (1.0, 0.5)))
    assert alert.value == 0.5


def test_stale_is_over_after_five_fresh_steps() -> None:
    fresh = [record(step, parameters=names((3.0, 3.0))) for step in range(2, 9)]
    said = alerts(Stale(), old(1, (3.0, 3.0)), *fresh)
    assert [(a.state, a.step) for a in said] == [("firing", 1), ("resolved", 6)]


def test_leaked_says_of_several_passes_what_may_be_and_of_one_what_is() -> None:
    (own,) = alerts(Leaked(), record(2, leaked=("mlp.weight",), backward_passes=1))
    (several,) = alerts(Leaked(), record(2, leaked=("mlp.weight",), backward_passes=2))
    assert own.severity == several.severity == "warning"
    assert "it was not zeroed after the step before" in own.message
    assert "not zeroed before the 2 backward passes of this step, or one was for another step" in several.message
    assert own.cause is not None
    assert own.cause.evidence == {"parameters": 1, "norm": 1.0, "backward_passes": 1}


def test_nothing_is_said_of_other_steps_and_of_skipped_ones() -> None:
    assert alerts(Stale(), *(record(step) for step in range(1, 5))) == []
    assert alerts(Leaked(), *(record(step) for step in range(1, 5))) == []
    assert alerts(Leaked(), record(1, leaked=("mlp.weight",), skipped=True)) == []
    assert alerts(Stale(), old(1, (3.0, 3.0), skipped=True)) == []
