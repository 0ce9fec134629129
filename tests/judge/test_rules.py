"""Each rule held against records that no loop made: where it fires, and where it stays silent."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

import gradwatch
from gradwatch.judge.baseline import Baseline
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.records import Alert, ClipCall, GroupNorms, StepRecord
from gradwatch.rules import ClipBroken, ClipOverflow, Explosion, NonFinite, Zero
from tests.made_up import record

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
    assert [rule.id for rule in one] == ["nonfinite", "explosion", "zero", "clip-broken", "clip-overflow"]
    assert all(a is not b for a, b in zip(one, other, strict=True))
    assert all(rule.severity == "critical" for rule in one)


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
    assert said(Explosion(limit=7.0), 7.5) == [("firing", 1)]


def test_an_explosion_does_not_become_the_new_normal() -> None:
    # Far more steps than the baseline's window holds.
    assert said(Explosion(), *USUAL, *[50.0] * 300) == [("firing", 23)]


def test_explosion_is_over_after_twenty_usual_steps() -> None:
    assert said(Explosion(), *USUAL, *[50.0] * 5, *[1.0] * 25) == [("firing", 23), ("resolved", 45)]


def test_norms_that_vary_widely_by_themselves_are_no_explosion() -> None:
    wide = [10.0 ** ((step * 7) % 5 - 2) for step in range(40)]  # 0.01 to 100
    assert said(Explosion(), *wide, *[50.0] * 3) == []


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


# zero


def modules(**norms: tuple[float, float]) -> dict[str, GroupNorms]:
    return {name: GroupNorms(*pair) for name, pair in norms.items()}


def zeros(count: int, **other: Any) -> list[StepRecord]:
    values = {"modules": modules(cnn=(5.0, 5.0), mlp=(0.0, 0.0)), **other}
    return [record(step, **values) for step in range(1, count + 1)]


def test_zero_fires_for_the_module_after_three_steps() -> None:
    assert alerts(Zero(), zeros(2)) == []
    (alert,) = alerts(Zero(), zeros(6))
    assert (alert.module, alert.step, alert.value, alert.severity) == ("mlp", 3, 0.0, "critical")
    assert "exactly 0" in alert.message


def test_zero_tells_missing_from_zero() -> None:
    missing = zeros(3, modules=modules(cnn=(5.0, 5.0), mlp=(NAN, NAN)), missing_modules=("mlp",))
    (alert,) = alerts(Zero(), missing)
    assert (alert.module, "missing" in alert.message) == ("mlp", True)


def test_zero_tells_an_erased_gradient() -> None:
    (alert,) = alerts(Zero(), zeros(3, modules=modules(mlp=(5.0, 0.0))))
    assert "erased" in alert.message


def test_zero_is_silent_on_small_and_on_nan_gradients() -> None:
    assert alerts(Zero(), zeros(9, modules=modules(a=(1e-300, 1e-300), b=(NAN, NAN)), nonfinite=("b.w",))) == []


def test_zero_passes_over_skipped_steps() -> None:
    assert alerts(Zero(), zeros(9, skipped=True)) == []


def test_zero_without_modules_looks_at_the_whole() -> None:
    whole = [record(step, 0.0, 0.0, modules={}) for step in (1, 2, 3)]
    (alert,) = alerts(Zero(), whole)
    assert alert.module is None
    nothing = [record(step, NAN, NAN, modules={}, missing=("mlp.weight",)) for step in (1, 2, 3)]
    (alert,) = alerts(Zero(), nothing)
    assert "missing" in alert.message
    partly = {"a": GroupNorms(1.0, 1.0), "b": GroupNorms(NAN, NAN)}
    assert alerts(Zero(), [record(s, modules={}, missing=("b",), parameters=partly) for s in range(1, 9)]) == []


def test_zero_is_over_after_three_steps_with_a_gradient() -> None:
    healthy = [record(step, modules=modules(cnn=(5.0, 5.0), mlp=(1.0, 1.0))) for step in range(4, 9)]
    assert [(a.state, a.step) for a in alerts(Zero(), zeros(3) + healthy)] == [("firing", 3), ("resolved", 6)]


# clip-broken


def call(after: float, limit: float = 1.0, **other: Any) -> ClipCall:
    values = {"norm_type": 2.0, "norm_returned": 5.0, "scope_before": 5.0, **other}
    return ClipCall("clip_grad_norm_", limit, scope_after=after, **values)


def broken(*calls: ClipCall, after: float = 1.0, **other: Any) -> list[Alert]:
    return alerts(ClipBroken(), [record(1, 5.0, after, clips=calls, **other)])


def test_clip_broken_fires_where_more_than_the_limit_was_consumed() -> None:
    (alert,) = broken(call(1.5))
    assert (alert.value, alert.threshold, alert.severity) == (1.5, 1.0, "critical")
    (alert,) = broken(call(1.00002))
    assert alert.value == 1.00002


def test_clip_broken_is_silent_within_the_limit_and_its_rounding() -> None:
    assert broken(call(1.0)) == broken(call(0.3)) == broken(call(1.000009)) == []


def test_two_halves_clipped_one_by_one_may_exceed_the_limit_together() -> None:
    assert broken(call(1.0), call(1.0), after=math.sqrt(2)) == []


def test_the_worst_call_is_told() -> None:
    (alert,) = broken(call(1.5), call(9.0, limit=2.0), call(0.1))
    assert (alert.value, alert.threshold) == (9.0, 2.0)


def test_a_norm_that_torch_computed_too_small_is_not_the_loops_fault() -> None:
    assert broken(call(1.02, norm_returned=4.9, scope_before=5.0)) == []
    assert len(broken(call(1.03, norm_returned=4.9, scope_before=5.0))) == 1
    # Half the norm is no rounding: other gradients were clipped than are held here.
    assert len(broken(call(2.0, norm_returned=2.5, scope_before=5.0))) == 1


@pytest.mark.parametrize("norm_type", [None, 3.0, math.inf])
def test_norms_that_do_not_bound_the_l2_norm_are_passed_over(norm_type: float | None) -> None:
    assert broken(call(9.0, norm_type=norm_type)) == []


def test_clip_broken_is_silent_where_nothing_was_clipped_or_nothing_is_known() -> None:
    assert broken(max_norm=None, after=9.0) == []
    assert broken(call(NAN)) == []
    assert broken(ClipCall("clip_grad_norm_", 1.0, 2.0)) == []
    assert broken(call(9.0), skipped=True) == []
    assert broken(call(9.0, limit=math.inf)) == []


def test_clip_broken_takes_a_bare_limit_too() -> None:
    (alert,) = broken(after=1.5, max_norm=1.0)
    assert (alert.value, alert.threshold) == (1.5, 1.0)
    assert broken(after=1.0, max_norm=1.0) == []


def test_a_tied_parameter_given_twice_is_told_with_the_true_norm() -> None:
    (alert,) = broken(call(0.5, norm_returned=7.07, repeated=("encoder.weight",)))
    assert alert.severity == "critical"
    assert "encoder.weight was given to clip_grad_norm_ more than once" in alert.message
    assert "7.07 where the true one is 5" in alert.message
    assert "down to a norm of 0.5" in alert.message


def test_a_tied_parameter_given_twice_below_the_limit_is_a_warning() -> None:
    (alert,) = broken(call(5.0, limit=10.0, norm_returned=7.07, repeated=("w",)))
    assert (alert.severity, alert.value, alert.threshold) == ("warning", 7.07, 10.0)
    assert "down to" not in alert.message


def test_a_norm_that_underflowed_is_told() -> None:
    (alert,) = broken(call(1e-23, norm_returned=0.0, scope_before=1e-23))
    assert alert.severity == "warning"
    assert "a norm of 0 for gradients whose true norm is 1e-23" in alert.message
    assert broken(call(0.0, norm_returned=0.0, scope_before=0.0)) == []


def test_of_two_faults_the_graver_is_told() -> None:
    (alert,) = broken(call(1e-23, norm_returned=0.0, scope_before=1e-23), call(3.0))
    assert (alert.severity, alert.value) == ("critical", 3.0)


# clip-overflow


def test_clip_overflow_fires_where_torchs_norm_of_finite_gradients_is_inf() -> None:
    erased = call(0.0, norm_returned=math.inf, scope_before=2.8e19)
    (alert,) = alerts(ClipOverflow(), [record(1, 2.8e19, 0.0, clips=(erased,))])
    assert (alert.rule, alert.severity, alert.value, alert.threshold) == ("clip-overflow", "critical", 2.8e19, 1.0)
    assert "whose true norm is 2.8e+19" in alert.message
    assert "erased the update" in alert.message


def test_clip_overflow_is_silent_where_the_norm_is_inf_in_truth_or_finite_for_torch() -> None:
    for calls in (
        call(NAN, norm_returned=math.inf, scope_before=math.inf),
        call(1.0),
        call(1.0, norm_returned=None),
    ):
        assert alerts(ClipOverflow(), [record(1, 5.0, 1.0, clips=(calls,))]) == []


def test_one_inf_is_told_with_what_clipping_made_of_the_rest() -> None:
    parameters = {"a": GroupNorms(math.inf, NAN), "b": GroupNorms(3.0, 0.0), "c": GroupNorms(4.0, 0.0)}
    calls = (call(NAN, norm_returned=math.inf, scope_before=math.inf),)
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
