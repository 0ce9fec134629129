"""Rules that look back on a window: growth, clip-saturated and vanishing."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from gradwatch.causes import cause
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Remembering, Rule
from gradwatch.records import Alert, GroupNorms, StepRecord
from gradwatch.rules import ClipSaturated, Explosion, Growth, Vanishing
from tests.made_up import record

NAN = math.nan


def told(rule: Rule, records: Iterable[StepRecord]) -> list[Alert]:
    judge = Judge([rule])
    return [alert for made in records for alert in judge.judge(made)]


def norms(of: Callable[[int], float], steps: int) -> list[StepRecord]:
    return [record(step, of(step)) for step in range(1, steps + 1)]


# growth


@pytest.mark.parametrize(("doubling", "by"), [(1.5, 25), (4.5, 25), (9.0, 50), (11.0, 100), (19.0, 100)])
def test_growth_fires_when_its_window_is_seen(doubling: float, by: int) -> None:
    (alert, *_) = told(Growth(), norms(lambda step: 2 ** (step / doubling), 120))
    assert (alert.step, alert.severity, alert.module) == (by, "warning", None)
    assert alert.value == pytest.approx(doubling, rel=0.01)
    assert alert.threshold == by / 5
    assert f"doubles every {doubling:g} steps" in alert.message


@pytest.mark.parametrize("doubling", [25.0, 100.0, math.inf, -10.0])
def test_slow_growth_and_none_are_silent(doubling: float) -> None:
    assert told(Growth(), norms(lambda step: 2 ** (step / doubling), 400)) == []


def test_growth_is_seen_through_noise() -> None:
    rng = random.Random(1)
    said = told(Growth(), norms(lambda step: 2 ** (step / 8) * math.exp(rng.gauss(0, 1)), 200))
    assert said
    assert said[0].step <= 120


def test_noise_alone_is_no_growth() -> None:
    # With this seed, medians of noise alone climb from block to block by three doublings.
    rng = random.Random(3)
    assert told(Growth(), norms(lambda _: math.exp(rng.gauss(0, 2.5)), 4000)) == []


def test_a_single_jump_and_a_pause_are_no_growth() -> None:
    assert told(Growth(), norms(lambda step: 1.0 if step < 200 else 1000.0, 400)) == []
    assert told(Growth(), norms(lambda step: 2.0 ** (step // 50), 90)) == []


def test_a_norm_that_was_there_before_does_not_grow() -> None:
    def swings(step: int) -> float:
        return math.exp(2.5 * math.sin(2 * math.pi * step / 260))

    def falls_then_rises(step: int) -> float:
        return math.exp(-step / 30) if step <= 150 else math.exp(-10 + step / 30)

    assert told(Growth(), norms(falls_then_rises, 300)) == []
    assert len([a for a in told(Growth(), norms(swings, 3000)) if a.state == "firing"]) <= 1


def test_growth_ends() -> None:
    said = told(Growth(), norms(lambda step: 2 ** (min(step, 100) / 4), 400))
    assert [alert.state for alert in said] == ["firing", "resolved"]


def test_what_has_no_logarithm_tells_nothing() -> None:
    grows = norms(lambda step: 2 ** (step / 4), 40)
    broken = [record(100 + i, norm, NAN) for i, norm in enumerate([NAN, math.inf, 0.0] * 40)]
    assert [a.state for a in told(Growth(), [*grows, *broken])] == ["firing"]


# clip-saturated


def clipped(steps: int, ratio: float, unclipped: Callable[[int], bool] = lambda _: False) -> list[StepRecord]:
    return [
        record(step, 1.0, 1.0) if unclipped(step) else record(step, 1 / ratio, 1.0, clipped=True)
        for step in range(1, steps + 1)
    ]


def test_clip_saturated_fires_after_forty_five_steps_at_the_start() -> None:
    (alert,) = told(ClipSaturated(), clipped(150, 0.001))
    assert (alert.step, alert.severity, alert.threshold) == (45, "warning", 0.01)
    assert alert.value == pytest.approx(0.001)
    assert "in 45 of the last 45 steps" in alert.message


def test_a_start_without_clipping_delays_it_no_longer_than_needed() -> None:
    (alert,) = told(ClipSaturated(), clipped(150, 0.001, lambda step: step <= 10))
    assert alert.step == 53


def test_later_it_looks_back_on_a_hundred_steps() -> None:
    (alert,) = told(ClipSaturated(), clipped(500, 0.001, lambda step: step <= 300))
    assert alert.step == 396
    assert "in 96 of the last 100 steps" in alert.message


def test_clipping_in_some_steps_or_by_little_is_silent() -> None:
    assert told(ClipSaturated(), clipped(500, 0.001, lambda step: step % 10 == 0)) == []
    assert told(ClipSaturated(), clipped(500, 0.011)) == []
    assert told(ClipSaturated(), [record(step, 1000.0, 1.0) for step in range(1, 300)]) == []


def test_steps_that_were_skipped_or_are_nan_tell_nothing() -> None:
    nothing = [record(step, NAN, NAN, skipped=step % 2 == 0) for step in range(200, 300)]
    assert [a.state for a in told(ClipSaturated(), [*clipped(60, 0.001), *nothing])] == ["firing"]


def test_clip_saturated_ends() -> None:
    said = told(ClipSaturated(), clipped(400, 0.001, lambda step: step > 200))
    assert [(a.state, a.step) for a in said] == [("firing", 45), ("resolved", 224)]


def test_a_ratio_that_stays_close_to_the_limit_is_one_alert() -> None:
    def swings(step: int) -> float:
        return 0.01 * (1.1 + 0.8 * math.sin(step / 100))

    steps = [record(step, 1 / swings(step), 1.0, clipped=True) for step in range(1, 2001)]
    after = [record(step, 1 / 0.0201, 1.0, clipped=True) for step in range(2001, 2200)]
    said = told(ClipSaturated(), [*steps, *after])
    assert [alert.state for alert in said] == ["firing", "resolved"]
    assert said[1].step > 2000


# vanishing


def small(steps: int, norm: float, whole: float = 1.0) -> list[StepRecord]:
    table = {"cnn": GroupNorms(whole, whole), "mlp": GroupNorms(norm, norm)}
    return [record(step, whole, whole, modules=table) for step in range(1, steps + 1)]


def test_vanishing_fires_after_five_steps() -> None:
    (alert,) = told(Vanishing(), small(20, 1e-9))
    assert (alert.module, alert.step, alert.severity, alert.value, alert.threshold) == (
        "mlp", 5, "warning", 1e-9, 1e-7,
    )  # fmt: skip
    assert "the gradient of mlp has all but vanished: its norm is 1e-09" in alert.message


def test_vanishing_is_silent_on_zero_and_above_its_limit_and_where_all_is_small() -> None:
    for norm, whole in ((0.0, 1.0), (NAN, 1.0), (1.1e-7, 1.0), (1e-9, 9e-8), (9e-8, 1e-6)):
        assert told(Vanishing(), small(20, norm, whole)) == []


def test_a_share_that_was_always_small_has_not_vanished() -> None:
    shrinking = [small(1, 1e-3 * whole, whole)[0] for whole in (10 ** (-step / 50) for step in range(320))]
    assert told(Vanishing(), shrinking) == []
    lost = [small(1, 1e-3 * whole * (1 if whole > 1e-3 else 1e-3), whole)[0] for whole in (1.0, 1e-2, *[1e-3] * 9)]
    assert [a.module for a in told(Vanishing(), lost)] == ["mlp"]


def test_vanishing_ends() -> None:
    assert [a.state for a in told(Vanishing(), [*small(9, 1e-9), *small(9, 1e-3)])] == ["firing", "resolved"]


# All of them


@pytest.mark.parametrize("kind", [Growth, ClipSaturated, Vanishing])
def test_a_resumed_run_goes_on(kind: type[Rule]) -> None:
    records = [
        record(step, 2 ** (step / 8), 1.0, clipped=True, modules={"a": GroupNorms(1.0, 10.0 ** -(step / 20))})
        for step in range(1, 200)
    ]
    whole, first, second = Judge([kind()]), Judge([kind()]), Judge([kind()])
    expected = [alert for made in records for alert in whole.judge(made)]
    said = [alert for made in records[:47] for alert in first.judge(made)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    said += [alert for made in records[47:] for alert in second.judge(made)]
    assert said == expected
    assert expected
    assert isinstance(kind(), Remembering)


def test_growth_is_told_by_medians() -> None:
    wild = {6: 1e6, 25: 1e-6}
    made = [record(s, wild.get(s, 2 ** (s / 3))) for s in range(1, 26)]
    (alert,) = told(Growth(), made)
    begin, end = (float(word) for word in alert.message.split("went from ")[1].split(", in ")[0].split(" to "))
    assert begin == pytest.approx(2 ** (3 / 3), rel=0.3)
    assert end == pytest.approx(2 ** (23 / 3), rel=0.3)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("height", [50.0, 1e3, 1e6])
def test_a_jump_is_no_growth(height: float, seed: int) -> None:
    rng = random.Random(seed)
    assert told(Growth(), norms(lambda step: rng.uniform(0.7, 1.4) * (height if step > 60 else 1.0), 200)) == []


def test_what_only_has_stopped_growing_is_not_called_healthy() -> None:
    _, over = told(Growth(), norms(lambda step: 2 ** (min(step, 60) / 4), 300))
    assert "healthy" not in over.message
    assert "no longer grows, and stays at 3.28e+04, where it was 1." in over.message
    _, over = told(Growth(), norms(lambda step: 2 ** (step / 4) if step <= 60 else 1.0, 300))
    assert "the last 50 did not show it" in over.message


def test_a_single_step_that_others_have_come_close_to_is_no_explosion() -> None:
    """As when training leaves a plateau: ever larger single steps between ordinary ones."""
    climb = {66: 8.0, 67: 8.0, 68: 8.0, 69: 40.0}
    spikes = climb | {74: 130.0, 80: 90.0}
    assert told(Explosion(), norms(lambda step: spikes.get(step, 1.0), 120)) == []
    far = climb | {74: 500.0}
    (fired, _) = told(Explosion(), norms(lambda step: far.get(step, 1.0), 120))
    assert (fired.state, fired.step) == ("firing", 74)


# One scale, from what it was down to nothing


def turns(*norms: float) -> list[StepRecord]:
    return [small(1, norm)[0] for norm in norms]


def numbered(records: Iterable[StepRecord]) -> list[StepRecord]:
    return [replace(made, step=step) for step, made in enumerate(records, 1)]


def test_next_to_nothing_and_exactly_0_in_turn_are_one_streak() -> None:
    well = turns(*[0.1] * 10)
    for ill in ([1e-28, 0.0], [1e-28, 0.0, 0.0], [0.0, 1e-28, 1e-28]):
        said = told(Vanishing(), numbered([*well, *turns(*ill * 4)]))
        assert [(a.rule, a.module) for a in said] == [("vanishing", "mlp")]
        assert said[0].step <= 16


def test_what_is_only_exactly_0_is_not_for_vanishing_to_tell() -> None:
    assert told(Vanishing(), numbered(turns(*[0.1] * 10, 1e-9, *[0.0] * 50))) == []


def test_what_has_vanished_stays_so_while_it_is_exactly_0() -> None:
    ill = turns(*[0.1] * 10, *[1e-9] * 8, *[0.0] * 300)
    assert [a.state for a in told(Vanishing(), numbered(ill))] == ["firing"]
    assert [a.state for a in told(Vanishing(), numbered([*ill, *turns(*[0.1] * 5)]))] == ["firing", "resolved"]


def test_vanishing_that_lasts_is_critical() -> None:
    said = told(Vanishing(), small(150, 1e-9))
    assert [(a.severity, a.state, a.step) for a in said] == [
        ("warning", "firing", 5), ("warning", "resolved", 100), ("critical", "firing", 100),
    ]  # fmt: skip
    assert "It has been so for 100 steps" in said[2].message


def test_vanishing_behind_a_dead_activation_is_critical_at_once() -> None:
    for kind, severity in (("saturated-tanh", "critical"), ("unknown", "warning")):
        judge, made = Judge([Vanishing()]), small(20, 1e-9)
        for one in made[:10]:
            judge.judge(one)
        (alert,) = judge.active
        judge.explained(alert.rule, alert.optimizer, alert.module, cause(kind, "mlp"), 10)
        judge.judge(made[10])
        assert [a.severity for a in judge.active] == [severity]


def test_streaks_go_on_in_a_resumed_run() -> None:
    made = numbered(turns(*[0.1] * 10, *[1e-28, 0.0] * 60, *[0.0] * 9, *[0.1] * 9))
    whole = told(Vanishing(), made)
    assert [a.state for a in whole] == ["firing", "resolved", "firing", "resolved"]
    for cut in (11, 13, 16, 100, 132):
        first, second = Judge([Vanishing()]), Judge([Vanishing()])
        said = [a for one in made[:cut] for a in first.judge(one)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert said + [a for one in made[cut:] for a in second.judge(one)] == whole, cut


def test_a_layer_that_starts_faint_is_silent_where_all_is_small() -> None:
    assert told(Vanishing(), numbered(small(9, 1e-9, 1e-8))) == []
