"""Each rule held against records that no loop made: where it fires, and where it stays silent."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradwatch
from gradwatch.judge.baseline import Baseline
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.records import Alert, ClipCall, GroupNorms, StepRecord
from gradwatch.rules import Explosion, NonFinite
from tests.blocks import blocks_of
from tests.made_up import record
from tests.zoo.registry import SEVERITIES

NAN = math.nan


def alerts(rule: Rule, records: list[StepRecord]) -> list[Alert]:
    judge = Judge([rule])
    return [alert for made in records for alert in judge.judge(made)]


def run(*norms: float, **other: Any) -> list[StepRecord]:
    return [record(step, norm, **other) for step, norm in enumerate(norms, 1)]


def said(rule: Rule, *norms: float, **other: Any) -> list[tuple[str, int]]:
    return [(alert.state, alert.step) for alert in alerts(rule, run(*norms, **other))]


def test_the_defaults_are_new_each_time_and_named_as_documented() -> None:
    one, other = gradwatch.default_rules(), gradwatch.default_rules()
    assert {rule.id: rule.severity for rule in one} == SEVERITIES
    assert all(a is not b for a, b in zip(one, other, strict=True))


def test_a_healthy_run_is_silent() -> None:
    judge = Judge(gradwatch.default_rules())
    clip = ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0, 5.0, 1.0)
    for step in range(1, 301):
        norm = 5.0 * math.exp(math.sin(step) * 0.7)
        assert judge.judge(record(step, norm, clips=(clip,))) == []


# nonfinite


def test_nonfinite_fires_at_once_and_names_the_parameters() -> None:
    (alert,) = alerts(NonFinite(), [record(1, NAN, NAN, nonfinite=("a", "b", "c", "d", "e"))])
    assert (alert.severity, alert.value, alert.module) == ("critical", 5.0, None)
    assert "a, b, c and 2 more" in alert.message
    assert "consumed" in alert.message


def test_nonfinite_is_a_warning_where_the_step_was_skipped() -> None:
    (alert,) = alerts(NonFinite(), [record(1, NAN, NAN, nonfinite=("a",), skipped=True)])
    assert alert.severity == "warning"
    assert "skipped" in alert.message


def skipped(count: int, **other: Any) -> list[StepRecord]:
    return [record(step, NAN, NAN, nonfinite=("a",), skipped=True, **other) for step in range(1, count + 1)]


def test_nonfinite_is_critical_after_ten_skipped_steps_in_a_row() -> None:
    assert len(alerts(NonFinite(), skipped(9))) == 1
    said = alerts(NonFinite(), skipped(12, loss_scale=64.0))
    assert [(a.severity, a.state, a.step) for a in said] == [
        ("warning", "firing", 1), ("warning", "resolved", 10), ("critical", "firing", 10),
    ]  # fmt: skip
    assert "10 steps in a row were skipped" in said[2].message
    assert "loss scale 64" in said[2].message


def test_skipped_steps_with_a_healthy_one_between_are_not_in_a_row() -> None:
    records = [*skipped(9), record(10), *(replace(made, step=made.step + 10) for made in skipped(9))]
    assert [(a.severity, a.state) for a in alerts(NonFinite(), records)] == [("warning", "firing")]


def test_the_count_of_skipped_steps_goes_on_after_a_resume() -> None:
    first, second = Judge([NonFinite()]), Judge([NonFinite()])
    for made in skipped(9):
        first.judge(made)
    second.load_state_dict(first.state_dict())
    assert [a.severity for a in second.judge(replace(skipped(1)[0], step=10))] == ["warning", "critical"]


def test_a_skip_and_then_a_nan_that_was_consumed() -> None:
    said = alerts(NonFinite(), [*skipped(1), record(2, NAN, NAN, nonfinite=("a",))])
    assert [(a.severity, a.state) for a in said] == [
        ("warning", "firing"), ("warning", "resolved"), ("critical", "firing"),
    ]  # fmt: skip


def test_nonfinite_is_silent_on_finite_and_on_missing_gradients() -> None:
    assert alerts(NonFinite(), [record(1, NAN, NAN, missing=("a",))]) == []
    assert said(NonFinite(), 1e30, 0.0) == []


def test_nonfinite_is_over_after_ten_finite_steps() -> None:
    records = [record(1, NAN, NAN, nonfinite=("a",)), *(record(step) for step in range(2, 14))]
    assert [(a.state, a.step) for a in alerts(NonFinite(), records)] == [("firing", 1), ("resolved", 11)]


# explosion

USUAL = [1.0, 1.1, 0.9, 1.05, 0.95] * 4


def test_explosion_needs_three_steps_running_above_ten_times_the_usual() -> None:
    assert said(Explosion(), *USUAL, 15, 15, 15, 15) == [("firing", 23)]
    assert said(Explosion(), *USUAL, 15, 15, 1, 15, 15, 1) == []


def test_explosion_is_silent_below_ten_times_the_usual() -> None:
    assert said(Explosion(), *USUAL, *[9.0] * 5) == []


def test_a_single_step_of_a_hundred_times_the_usual_is_enough() -> None:
    assert said(Explosion(), *USUAL, 101) == [("firing", 21)]
    assert said(Explosion(), *USUAL, 99) == []


def test_explosion_waits_for_its_warm_up() -> None:
    assert said(Explosion(), *USUAL[:19], 1000) == []
    assert said(Explosion(), *USUAL[:20], 1000) == [("firing", 21)]


def test_the_absolute_limit_needs_no_warm_up() -> None:
    assert said(Explosion(), 1.1e8) == [("firing", 1)]
    assert said(Explosion(), 0.9e8) == []
    (alert,) = alerts(Explosion(), run(1.1e8))
    assert alert.message == "norm before clipping 1.1e+08, above the rule's own bound of 1e+08"
    assert said(Explosion(limit=7.0), 7.5) == [("firing", 1)]


def test_an_explosion_does_not_become_the_new_normal() -> None:
    # Far more steps than the baseline's window holds.
    assert said(Explosion(), *USUAL, *[50.0] * 300) == [("firing", 23)]


def test_explosion_is_over_after_twenty_usual_steps() -> None:
    assert said(Explosion(), *USUAL, *[50.0] * 5, *[1.0] * 25) == [("firing", 23), ("resolved", 45)]


def test_nan_does_not_end_an_explosion() -> None:
    norms = [*USUAL, 50, 50, 50, *[NAN, math.inf] * 30]
    assert said(Explosion(), *norms) == [("firing", 23)]
    assert said(Explosion(), *norms, *[1.0] * 20) == [("firing", 23), ("resolved", 103)]


def test_norms_that_vary_widely_by_themselves_are_no_explosion() -> None:
    wide = [10.0 ** ((step * 7) % 5 - 2) for step in range(40)]  # 0.01 to 100
    assert said(Explosion(), *wide, *[50.0] * 3) == []


# The usual is forgotten after 200 steps.
HIGH_ONCE = [*[40.0] * 30, *USUAL * 11]


def explosions(*norms: float) -> list[tuple[str, str, int]]:
    return [(a.severity, a.state, a.step) for a in alerts(Explosion(), unclipped(*norms))]


def unclipped(*norms: float) -> list[StepRecord]:
    return [record(step, norm, norm) for step, norm in enumerate(norms, 1)]


def test_a_norm_that_comes_back_to_where_it_was_long_ago_is_a_warning() -> None:
    assert explosions(*HIGH_ONCE, *[50.0] * 5) == [("warning", "firing", 253)]
    (alert,) = alerts(Explosion(), [record(step, norm) for step, norm in enumerate([*HIGH_ONCE, 50, 50, 50], 1)])
    assert alert.message == "norm before clipping 50, 50 times the usual. Earlier in this run it was at 40"


def test_it_is_critical_beyond_three_times_that_or_where_it_was_an_accident() -> None:
    assert explosions(*HIGH_ONCE, *[121.0] * 5) == [("critical", "firing", 251)]
    assert explosions(*HIGH_ONCE, *[119.0] * 5) == [("warning", "firing", 251)]
    assert explosions(*[10.0] * 30, *USUAL * 11, *[31.0] * 5) == [("critical", "firing", 253)]
    assert explosions(*[1.0, 40.0, 40.0] * 10, *USUAL * 11, *[50.0] * 5) == [("critical", "firing", 253)]


def test_a_warning_that_goes_beyond_becomes_critical() -> None:
    rising = [50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 130.0]
    assert explosions(*HIGH_ONCE, *rising) == [
        ("warning", "firing", 253), ("warning", "resolved", 257), ("critical", "firing", 257),
    ]  # fmt: skip


CALM = USUAL * 2


def firing(*norms: float) -> list[tuple[str, int]]:
    return [(severity, step) for severity, state, step in explosions(*norms) if state == "firing"]


def test_each_explosion_is_told_of_also_where_it_is_like_one_that_is_over() -> None:
    assert firing(*CALM, 500.0, *CALM, 500.0, *CALM, *[50.0] * 3) == [
        ("critical", 41), ("warning", 82), ("critical", 125),
    ]  # fmt: skip


def test_a_step_no_higher_than_one_that_passed_by_itself_is_a_warning() -> None:
    assert firing(*CALM, 500.0, *CALM, 1490.0) == [("critical", 41), ("warning", 82)]
    assert firing(*CALM, 500.0, *CALM, 1510.0) == [("critical", 41), ("critical", 82)]
    # Where it stays there, nothing has passed.
    assert firing(*CALM, 500.0, *CALM, *[500.0] * 3) == [("critical", 41), ("warning", 82), ("critical", 84)]
    *_, second = alerts(Explosion(), unclipped(*CALM, 500.0, *CALM, 600.0))
    assert second.message == (
        "norm before clipping 600, 600 times the usual. It was at 500 before, and came back by itself"
    )


def test_a_step_that_was_skipped_has_not_passed_by_itself() -> None:
    norms = [*CALM, 500.0, *CALM, 500.0]
    records = [record(i, n, n, skipped=i == len(CALM)) for i, n in enumerate(norms)]
    assert [a.severity for a in alerts(Explosion(), records) if a.state == "firing"] == ["warning", "critical"]


def test_an_explosion_that_was_skipped_is_told_as_nan_is() -> None:
    norms = [*CALM, *[500.0] * 12]
    records = [record(i, n, NAN if n == 500.0 else n, skipped=n == 500.0) for i, n in enumerate(norms)]
    first, last = (a for a in alerts(Explosion(), records) if a.state == "firing")
    assert (first.severity, first.step) == ("warning", len(CALM))
    assert (
        first.message == "norm before clipping 500, 500 times the usual; the step was skipped and changed nothing"
    )
    assert (last.severity, last.step) == ("critical", len(CALM) + 9)
    assert last.message.endswith("10 steps in a row were skipped: training stands still")


@pytest.mark.parametrize(
    ("rule", "bad"), [(NonFinite(), {"norm": NAN, "nonfinite": ("a",)}), (Explosion(), {"norm": 1e9})]
)
def test_a_step_at_which_the_loop_was_stopped_is_critical(rule: Any, bad: dict[str, Any]) -> None:
    judge, norm = Judge([rule]), bad.pop("norm")
    judge.refused("actor", 1)
    (alert,) = judge.judge(record(1, norm, NAN, skipped=True, **bad))
    assert alert.severity == "critical"
    assert alert.message.endswith("; the step was refused and changed nothing")


def test_a_norm_is_held_against_one_threshold_by_the_alert_and_by_the_guard() -> None:
    rule = Explosion()
    for one in unclipped(*CALM):
        rule.look(one)
    above = rule.critical_above("actor")
    (found,) = rule.look(record(99, 1e9, 1e9)) or ()
    assert found.threshold == above
    assert "limit" not in found.message


@pytest.mark.parametrize("size", [1, 3, 16, 42])
@pytest.mark.parametrize("skipped", [False, True])
def test_what_passed_by_itself_is_so_in_blocks_too(size: int, skipped: bool) -> None:
    norms = [*CALM, 1.0, 500.0, *CALM, *CALM, 1.0, 1.0, 500.0, *CALM]
    first = norms.index(500.0)
    records = [record(i, n, n, skipped=skipped and i == first) for i, n in enumerate(norms)]
    judge = Judge([Explosion()])
    told = [alert for block in blocks_of(records, itertools.repeat(size)) for alert in judge.judge_block(block)]
    assert told == alerts(Explosion(), records)
    severities = ["critical", "warning"]
    assert [a.severity for a in told if a.state == "firing"] == severities[:: -1 if skipped else 1]


def test_what_passed_by_itself_is_known_to_a_resumed_run_and_not_let_by_a_guard() -> None:
    rule, resumed = Explosion(), Explosion()
    for one in unclipped(*CALM, 500.0, *CALM):
        rule.look(one)
    resumed.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    assert rule.critical_above("actor") == resumed.critical_above("actor") == 10.0
    (found,), (again,) = rule.look(record(99, 500.0, 500.0)) or (), resumed.look(record(99, 500.0, 500.0)) or ()
    assert found == again
    assert found.severity == "warning"


def test_a_single_step_a_hundred_times_the_usual_is_told_of_also_where_it_was_so_high_before() -> None:
    assert explosions(*HIGH_ONCE, 110.0) == [("warning", "firing", 251)]


def clipped(*norms: float, limit: float = 1.0) -> list[StepRecord]:
    return [record(step, norm, min(norm, limit), clipped=norm > limit) for step, norm in enumerate(norms, 1)]


def of_severity(records: list[StepRecord]) -> list[tuple[str, str, int]]:
    return [(a.severity, a.state, a.step) for a in alerts(Explosion(), records)]


def test_single_steps_that_clipping_holds_are_a_warning() -> None:
    spikes = [*USUAL, 500.0, *USUAL, 500.0, 1.0, 500.0, 500.0, *USUAL]
    told = of_severity(clipped(*spikes))
    assert [(severity, step) for severity, state, step in told if state == "firing"] == [
        ("warning", 21),
        ("warning", 42),
    ]
    assert of_severity(clipped(*spikes, limit=9.9)) == told


def test_clipping_that_leaves_too_much_holds_nothing() -> None:
    assert of_severity(clipped(*USUAL, 500.0, *USUAL, limit=10.5))[0] == ("critical", "firing", 21)


def test_what_clipping_holds_step_after_step_is_critical_in_the_third() -> None:
    assert of_severity(clipped(*USUAL, *[500.0] * 9)) == [
        ("warning", "firing", 21), ("warning", "resolved", 23), ("critical", "firing", 23),
    ]  # fmt: skip
    assert of_severity(clipped(*USUAL, *[50.0] * 9)) == [("critical", "firing", 23)]


@pytest.mark.parametrize("cut", [21, 22, 23])
def test_how_long_clipping_has_held_it_is_in_its_state(cut: int) -> None:
    records = clipped(*USUAL, *[500.0] * 5)
    first, second = Judge([Explosion()]), Judge([Explosion()])
    told = [a for made in records[:cut] for a in first.judge(made)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    told += [a for made in records[cut:] for a in second.judge(made)]
    assert told == alerts(Explosion(), records)


def test_where_it_was_before_is_in_its_state() -> None:
    norms = [*HIGH_ONCE, *[50.0] * 5]
    whole = explosions(*norms)
    assert whole[-1][0] == "warning"
    for cut in (1, 20, 22, 29, 200, 202, 224, 242, 252):
        first, second = Judge([Explosion()]), Judge([Explosion()])
        records = unclipped(*norms)
        said = [alert for made in records[:cut] for alert in first.judge(made)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        said += [alert for made in records[cut:] for alert in second.judge(made)]
        assert [(a.severity, a.state, a.step) for a in said] == whole, cut


def test_the_baseline_survives_nan_and_inf_and_zero() -> None:
    broken = [NAN, math.inf, 0.0] * 100
    assert said(Explosion(), *USUAL, *broken, 15, 15, 15) == [("firing", 323)]
    assert said(Explosion(), *USUAL, *broken, 5, 5, 5) == []


def test_each_optimizer_has_a_baseline_of_its_own() -> None:
    rule = Explosion()
    judge = Judge([rule])
    for step, norm in enumerate(USUAL, 1):
        assert judge.judge(record(step, norm, optimizer="a")) == []
        assert judge.judge(record(step, norm * 1e4, optimizer="b")) == []
    assert judge.judge(record(21, 1e4, optimizer="b")) == []
    (alert,) = judge.judge(record(21, 1e4, optimizer="a"))
    assert (alert.value, alert.threshold) == (1e4, pytest.approx(10.0, rel=0.1))


def test_one_inf_is_told_with_what_clipping_made_of_the_rest() -> None:
    parameters = {"a": GroupNorms(math.inf, NAN), "b": GroupNorms(3.0, 0.0), "c": GroupNorms(4.0, 0.0)}
    calls = (ClipCall("clip_grad_norm_", 1.0, 2.0, math.inf, math.inf, NAN),)
    made = record(1, math.inf, NAN, nonfinite=("a",), parameters=parameters, clips=calls)
    (alert,) = alerts(NonFinite(), [made])
    assert "by a norm of inf torch's clipping erased the finite rest, whose true norm is 5" in alert.message
    (alert,) = alerts(NonFinite(), [replace(made, clips=())])
    assert "clipping" not in alert.message


# The baseline itself


def test_the_median_is_the_lower_of_the_middle_two() -> None:
    baseline = Baseline()
    for value in (8.0, 2.0, 32.0):
        baseline.add(value)
    assert baseline.median() == pytest.approx(8.0)
    baseline.add(1e9)
    assert baseline.median() == pytest.approx(8.0)


def test_the_spread_is_a_factor() -> None:
    baseline = Baseline()
    for value in (1.0, 10.0, 100.0, 1000.0, 10_000.0):
        baseline.add(value)
    assert baseline.spread() == pytest.approx(10**1.4826)
    constant = Baseline()
    for _ in range(5):
        constant.add(3.0)
    assert constant.spread() == pytest.approx(1.0)


def test_only_the_window_counts() -> None:
    baseline = Baseline(window=3)
    for value in (1e9, 1e9, 1e9, 1.0, 2.0, 3.0):
        baseline.add(value)
    assert len(baseline) == 3
    assert baseline.median() == pytest.approx(2.0)


def test_values_without_a_logarithm_are_passed_over() -> None:
    baseline = Baseline()
    for value in (NAN, math.inf, 0.0, -1.0, 4.0):
        baseline.add(value)
    assert len(baseline) == 1
    assert baseline.median() == pytest.approx(4.0)


def test_above_what_norm_a_step_would_be_critical() -> None:
    rule = Explosion()
    assert rule.critical_above("actor") == 1e8
    assert Explosion(limit=math.inf).critical_above("actor") == math.inf
    rng = random.Random(3)
    high = [record(step, 50.0) for step in range(1, 6)]
    usual = [record(step, math.exp(rng.gauss(0, 0.2))) for step in range(6, 400)]
    for made in (*high, *usual):
        assert rule.look(made) == []
    # It was at 50 before what it looks back on: up to three times that is a warning.
    assert rule.critical_above("actor") == pytest.approx(150.0)
    limit = rule.critical_above("actor")
    (below,), (above,) = (rule.look(record(400, limit * by, limit * by)) for by in (0.999, 1.001))
    assert (below.severity, above.severity) == ("warning", "critical")


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0])
def test_a_norm_just_above_is_critical_and_one_just_below_is_not(sigma: float) -> None:
    rule, rng = Explosion(), random.Random(1)
    for step in range(1, 100):
        rule.look(record(step, math.exp(rng.gauss(0, sigma))))
    edge = rule.critical_above("actor")
    (above,) = rule.look(record(100, edge * 1.0001, edge * 1.0001))
    assert above.severity == "critical"
    assert rule.look(record(101, edge * 0.9999)) == []


# explosion: the first steps, and what is climbed to


def test_a_jump_at_the_first_update_that_does_not_come_back() -> None:
    for first in (1, 2, 5, 9):
        begun, over, goes_on = alerts(Explosion(), run(*[1.3] * first, *[30.0, 20.0, 60.0, 40.0] * 10))
        assert (begun.severity, begun.step, begun.state) == ("warning", 20, "firing"), first
        assert f"jumped at step {first + 1}" in begun.message
        assert (over.state, goes_on.severity, goes_on.step) == ("resolved", "critical", 40)
        assert "times what it was at first" in goes_on.message
    for first, step in ((12, 20), (17, 20), (18, 23), (20, 23)):
        assert said(Explosion(), *[1.3] * first, *[30.0, 20.0, 60.0, 40.0] * 5)[0] == ("firing", step), first


# The norms of an actor of TD3, healthy, of which the first was low by accident: a step in 8 is below ten times it.
LOW_AT_FIRST = [0.3, 0.25, 0.4, 0.3, 0.24, 0.5, 0.2, 0.35]


def test_a_first_norm_that_was_low_by_accident_is_nothing_critical() -> None:
    told = explosions(0.024, *LOW_AT_FIRST * 20)
    assert [(severity, state) for severity, state, _ in told] == [("warning", "firing"), ("warning", "resolved")]
    rule = Explosion()
    for made in unclipped(0.024, *LOW_AT_FIRST * 4):
        rule.look(made)
    assert rule.critical_above("actor") == 1e8


def test_a_jump_in_the_first_steps_that_comes_back_is_none() -> None:
    assert said(Explosion(), 1.3, *[30.0] * 8, *[1.3] * 60) == []
    assert said(Explosion(), 1.3, *[30.0, 30.0, 30.0, 3.0] * 20) == []
    assert said(Explosion(), 1.3, *[12.0] * 60) == []
    assert said(Explosion(), *[30.0] * 5, *[1.3] * 60) == []


def test_an_explosion_of_the_first_steps_ends_when_the_norm_is_back() -> None:
    assert said(Explosion(), 1.3, *[40.0] * 38, *[1.5] * 25) == [("firing", 20), ("resolved", 59)]


def test_what_is_climbed_to_step_by_step_is_no_explosion_up_to_a_hundred_times() -> None:
    climbs = [math.exp(step / 10) for step in range(80)]
    assert said(Explosion(), *[1.0] * 60, *climbs[:45], *[90.0] * 100) == []
    assert said(Explosion(), *[1.0] * 60, *climbs, *[2000.0] * 9)[0] == ("firing", 110)


def test_a_level_held_before_is_remembered_also_within_the_window() -> None:
    converged = [*[0.5] * 30, *[1e-6] * 60]
    (alert,) = alerts(Explosion(), run(*converged, *[0.004] * 3))
    assert (alert.severity, alert.message.split(". ")[1]) == ("warning", "Earlier in this run it was at 0.5")


def test_a_resumed_run_knows_that_its_first_steps_exploded() -> None:
    norms = [1.3, *[40.0] * 60]
    for cut in (1, 19, 20, 22, 40):
        first, second = Judge([Explosion()]), Judge([Explosion()])
        told = [a for made in run(*norms)[:cut] for a in first.judge(made)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        told += [a for made in run(*norms)[cut:] for a in second.judge(made)]
        assert [(a.state, a.severity, a.step) for a in told] == [
            ("firing", "warning", 20),
            ("resolved", "warning", 40),
            ("firing", "critical", 40),
        ], cut


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([1e-6, 0.004, 1.0, 1e6]))
def test_nothing_is_critical_below_what_the_run_has_held(seed: int, level: float) -> None:
    """However low it has been since, and however suddenly it comes back."""
    rng, levels = random.Random(seed), [level] * 30
    for _ in range(4):
        levels += [level * 10 ** rng.uniform(-6, -1)] * rng.randint(60, 250)
        levels += [level * rng.uniform(0.5, 2.0)] * rng.randint(1, 5)
    told = alerts(Explosion(), unclipped(*(each * math.exp(rng.gauss(0, 0.1)) for each in levels)))
    assert not [each for each in told if each.severity == "critical"]
    assert not any("healthy" in each.message for each in told)
