import math

import pytest

import gradwatch
from gradwatch.judge.baseline import Baseline
from gradwatch.judge.judge import Judge
from gradwatch.records import ClipCall, GroupNorms
from gradwatch.rules import ClipBroken, Explosion, NonFinite, Zero
from tests.made_up import record


def events(rule, records):
    judge = Judge([rule])
    return [(a.step, a.state, a.module) for r in records for a in judge.judge(r)]


def norms(values, **other):
    return [record(step, value, min(value, 1.0), **other) for step, value in enumerate(values, 1)]


def module(step, after, before=1.0, **other):
    return record(step, modules={"mlp": GroupNorms(before, after)}, **other)


def test_zero_fires_on_the_third_step_running_once_and_is_resolved_once():
    afters = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert events(Zero(), [module(i, after, after) for i, after in enumerate(afters, 1)]) == [
        (6, "firing", "mlp"),
        (12, "resolved", "mlp"),
    ]


def test_zero_tells_zero_erased_and_missing_apart():
    def message(made):
        (finding,) = Zero().look(made)
        return finding.message

    assert "is exactly 0" in message(module(1, 0.0, 0.0))
    assert "erased between" in message(module(1, 0.0, 3.0))
    assert ".grad is None" in message(module(1, math.nan, math.nan, missing_modules=("mlp",)))


def test_zero_stays_silent_on_nan_on_small_and_on_skipped_steps():
    rule = Zero(fires_after=1)
    assert events(rule, [module(1, math.nan), module(2, 1e-300), module(3, 0.0, skipped=True)]) == []


def test_nonfinite_names_parameters_and_is_a_warning_where_the_step_was_skipped():
    names = tuple(f"p{i}" for i in range(5))
    (alert,) = Judge([NonFinite()]).judge(record(nonfinite=names))
    assert (alert.severity, "p0, p1, p2 and 2 more" in alert.message) == ("critical", True)
    (alert,) = Judge([NonFinite()]).judge(record(nonfinite=names, skipped=True))
    assert alert.severity == "warning"


def test_nonfinite_is_one_episode():
    bad = [record(step, nonfinite=("p",) if step in (3, 4, 6) else ()) for step in range(1, 30)]
    assert events(NonFinite(), bad) == [(3, "firing", None), (16, "resolved", None)]


def test_explosion_in_a_single_step_at_a_hundred_times_the_baseline():
    assert events(Explosion(), norms([*[1.0, 1.1] * 15, 150.0])) == [(31, "firing", None)]


def test_explosion_in_three_steps_at_ten_times():
    assert events(Explosion(), norms([*[1.0, 1.1] * 15, 20.0, 20.0, 20.0, 20.0])) == [(33, "firing", None)]
    assert events(Explosion(), norms([*[1.0, 1.1] * 15, 20.0, 20.0, 1.0, 20.0, 20.0])) == []


def test_explosion_does_not_become_the_new_normal():
    fired = events(Explosion(), norms([*[1.0] * 30, *[200.0] * 300, *[1.0] * 30]))
    assert fired == [(31, "firing", None), (350, "resolved", None)]


def test_explosion_is_silent_in_the_warm_up_and_on_large_steady_norms():
    assert events(Explosion(), norms([1.0, 500.0] * 9)) == []
    assert events(Explosion(), norms([1e6, 1.2e6, 0.9e6] * 100)) == []


def test_explosion_at_the_absolute_limit_needs_no_baseline():
    assert events(Explosion(limit=10.0), norms([11.0])) == [(1, "firing", None)]


def test_the_baseline_survives_nan_and_what_has_no_logarithm():
    baseline = Baseline(window=5)
    for value in (math.nan, math.inf, 0.0, -1.0, 1.0, 2.0, 3.0, math.nan):
        baseline.add(value)
    assert (len(baseline), baseline.median()) == (3, pytest.approx(2.0))


def test_the_baseline_holds_only_its_window():
    baseline = Baseline(window=5)
    for value in range(1, 1001):
        baseline.add(float(value))
    assert (len(baseline), len(baseline._sorted), baseline.median()) == (5, 5, pytest.approx(998.0))


@pytest.mark.parametrize(
    ("clip", "broken"),
    [
        (ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0, 5.0, 1.0), False),
        (ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0, 5.0, 1.000001), False),
        (ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0, 5.0, 1.0001), True),
        # Torch's own norm was 1 % too small: the excess is torch's rounding.
        (ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0, 5.05, 1.01), False),
        (ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0, 5.05, 1.02), True),
        # The maximum norm does not bound the L2 norm, the sum of magnitudes does.
        (ClipCall("clip_grad_norm_", 1.0, math.inf, 5.0, 9.0, 2.0), False),
        (ClipCall("clip_grad_norm_", 1.0, 1.0, 5.0, 5.0, 2.0), True),
        (ClipCall("clip_grad_value_", 1.0, None, None, 5.0, 2.0), False),
    ],
)
def test_a_clip_call_is_held_to_its_own_limit(clip, broken):
    assert bool(list(ClipBroken().look(record(after=9.0, clips=(clip,))))) is broken


def test_two_calls_on_two_halves_may_leave_more_than_either_limit():
    half = ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0, 5.0, 1.0)
    assert list(ClipBroken().look(record(after=math.sqrt(2), max_norm=1.0, clips=(half, half)))) == []


def test_without_the_calls_the_limit_of_the_record_counts():
    assert [f.threshold for f in ClipBroken().look(record(after=2.0, max_norm=1.0))] == [1.0]
    assert list(ClipBroken().look(record(after=2.0, max_norm=None))) == []


def test_default_rules_are_new_each_time():
    first, second = gradwatch.default_rules(), gradwatch.default_rules()
    assert [rule.id for rule in first] == ["nonfinite", "explosion", "zero", "clip-broken"]
    assert not set(map(id, first)) & set(map(id, second))
