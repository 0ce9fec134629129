"""Each ill, planted in a loop that was healthy for 300 steps: its rule fires within five steps of its being visible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gradwatch.judge.judge import Judge
from gradwatch.records import Alert, ClipCall, GroupNorms, StepRecord
from gradwatch.rules import default_rules
from tests.judge.healthy import NAN, Norms, heads_drawn, low_rank, noisy, record_of, records, steady

ONSET = 300


def fall_ill(
    change: Callable[[StepRecord, int], StepRecord], loop: Iterator[Norms] | None = None, steps: int = 400
) -> list[Alert]:
    """What is said of a loop that is changed from ``ONSET`` on; the change is told how many steps ago that was."""
    judge = Judge(default_rules())
    said = []
    for made in records(loop or steady(1), 1.0, steps):
        said += judge.judge(made if made.step < ONSET else change(made, made.step - ONSET))
    return said


def only(said: list[Alert], rule: str, visible: int = 0) -> Alert:
    """The alert of the rule, which fired within five steps, and before which nothing was said."""
    assert said[0].step >= ONSET
    first = next(alert for alert in said if alert.rule == rule)
    assert first.state == "firing"
    assert first.step - ONSET - visible < 5
    return first


def remade(made: StepRecord, limit: float | None = 1.0, **norms: float) -> StepRecord:
    """The record, with these norms of modules before clipping."""
    before = {name: pair.norm_before for name, pair in made.modules.items()}
    return record_of(made.step, {**before, **norms}, limit)


def test_a_module_that_dies() -> None:
    said = fall_ill(lambda made, _: remade(made, head=0.0))
    alert = only(said, "zero")
    assert (alert.severity, alert.module, alert.cause) == ("critical", "head", None)
    assert len(said) == 1


def test_a_module_that_is_cut_off() -> None:
    said = fall_ill(lambda made, _: remade(made, head=NAN))
    warning, over, critical = said
    assert (warning.severity, warning.module, warning.step) == ("warning", "head", ONSET + 2)
    assert (over.state, over.severity, critical.severity, critical.state) == (
        "resolved", "warning", "critical", "firing",
    )  # fmt: skip
    assert over.step == critical.step == ONSET + 10


def test_a_head_that_dies_among_heads_that_are_drawn() -> None:
    said = fall_ill(lambda made, _: remade(made, head3=NAN), heads_drawn(1, 3 + 1), steps=ONSET + 400)
    alert = next(alert for alert in said if alert.rule == "zero")
    # Drawn in every fourth step: a silence of 64 steps has a chance of 1e-8.
    assert (alert.module, alert.severity) == ("head3", "critical")
    assert 60 < alert.step - ONSET < 400


def test_a_trunk_that_dies_under_heads_that_are_drawn() -> None:
    alert = only(fall_ill(lambda made, _: remade(made, trunk=0.0), heads_drawn(1)), "zero")
    assert (alert.module, alert.severity) == ("trunk", "critical")


def test_a_module_that_dies_where_another_was_silent_in_the_first_step_alone() -> None:
    assert only(fall_ill(lambda made, _: remade(made, B=0.0), low_rank(1)), "zero").module == "B"


def test_all_modules_that_die_at_once_are_critical() -> None:
    said = fall_ill(lambda made, _: remade(made, body=0.0, head=0.0))
    assert [(a.rule, a.severity, a.module) for a in said] == [
        ("zero", "critical", "body"), ("zero", "critical", "head"),
    ]  # fmt: skip


def test_a_gradient_that_vanishes() -> None:
    said = fall_ill(lambda made, _: remade(made, head=1e-9), steps=ONSET + 50)
    assert (only(said, "vanishing").module, len(said)) == ("head", 1)


@pytest.mark.parametrize("factor", [20.0, 1000.0])
def test_a_norm_that_explodes(factor: float) -> None:
    said = fall_ill(lambda made, _: remade(made, body=factor * 2, head=factor))
    assert only([alert for alert in said if alert.severity == "critical"], "explosion").step <= ONSET + 2


def test_a_norm_that_grows_from_the_start() -> None:
    judge = Judge(default_rules())
    grows = ({"body": math.exp(step / 5), "head": 1.0} for step in itertools.count())
    (alert, *_) = [alert for made in records(grows, None, 60) for alert in judge.judge(made)]
    assert (alert.rule, alert.severity, alert.step) == ("growth", "warning", 25)
    assert alert.value == pytest.approx(5 * math.log(2), rel=0.2)


def with_clip(made: StepRecord, after: float, **call: Any) -> StepRecord:
    values = {"norm_type": 2.0, "norm_returned": made.norm_before, "scope_before": made.norm_before, **call}
    return replace(made, clips=(ClipCall("clip_grad_norm_", 1.0, scope_after=after, **values),))


def test_clipping_that_does_not_hold() -> None:
    said = fall_ill(lambda made, _: with_clip(remade(made, body=3.0), after=3.01))
    assert only(said, "clip-broken").severity == "critical"


def test_clipping_that_erases() -> None:
    def erased(made: StepRecord, _: int) -> StepRecord:
        huge = remade(made, None, body=2e19)
        gone = {name: GroupNorms(pair.norm_before, 0.0) for name, pair in huge.modules.items()}
        return with_clip(
            replace(huge, modules=gone, norm_after=0.0, max_norm=1.0), after=0.0, norm_returned=math.inf
        )

    said = fall_ill(erased)
    assert only(said, "clip-overflow").cause.kind == "clip-overflow"  # type: ignore[union-attr]
    assert {a.cause.kind for a in said if a.rule == "zero" and a.cause} == {"clip-overflow"}


def test_clipping_that_hides_an_explosion() -> None:
    # Visible once 96 of the last 100 steps were clipped.
    said = fall_ill(lambda made, _: remade(made, body=500.0), steps=500)
    alert = only(said, "clip-saturated", visible=95)
    assert alert.severity == "warning"
    assert (
        f" of the last 100 steps and left {100 * alert.value:.2g} % of the norm, in the median: " in alert.message
    )


def test_old_gradients() -> None:
    last: list[StepRecord] = []

    def repeated(made: StepRecord, ago: int) -> StepRecord:
        old = last[0] if last else made
        last[:] = [old]
        names = tuple(old.parameters) if ago else ()
        settled = {name: GroupNorms(pair.norm_after, pair.norm_after) for name, pair in old.parameters.items()}
        return replace(
            old, step=made.step, parameters=settled, stale=names, unwritten=names, backward_passes=0, clips=()
        )

    alert = only(fall_ill(repeated), "stale", visible=1)
    assert (alert.severity, alert.step) == ("critical", ONSET + 1)
    assert alert.cause is not None
    assert alert.cause.kind == "stale"


def test_another_steps_gradients() -> None:
    alert = only(fall_ill(lambda made, _: replace(made, leaked=("body.weight",), backward_passes=2)), "leaked")
    assert (alert.severity, alert.cause.kind if alert.cause else None) == ("warning", "leaked")


def test_gradients_that_are_not_finite() -> None:
    alert = only(fall_ill(lambda made, _: replace(made, nonfinite=("body.weight",), norm_before=NAN)), "nonfinite")
    assert alert.severity == "critical"


def test_a_module_that_holds_all_beside_one_that_is_silent_is_no_shortcut_yet() -> None:
    """Which of them feeds which is not in the record: only a graph shows that the loss goes around the silent one."""
    grows = ({"cnn": noisy_growth(step), "mlp": 0.1 if step < 9 else 0.0} for step in itertools.count())
    judge = Judge(default_rules())
    said = [alert for made in records(grows, 1.0, 100) for alert in judge.judge(made)]
    assert [(a.rule, a.module, a.step) for a in said if a.rule == "zero"] == [("zero", "mlp", 12)]
    assert {a.rule for a in said if a.state == "firing"} == {"zero", "growth", "clip-saturated"}
    assert [a.rule for a in said if a.cause is not None] == []


def noisy_growth(step: int) -> float:
    import random

    return noisy(random.Random(step), 0.2 * math.exp(min(step, 40) * 0.35), 0.2)
