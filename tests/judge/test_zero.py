"""The rule on gradients that are exactly 0, or missing."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gradwatch.causes import cause
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.records import Alert, GroupNorms, StepRecord
from gradwatch.rules import Zero
from tests.made_up import record

NAN = math.nan


def alerts(rule: Rule, records: list[StepRecord]) -> list[Alert]:
    judge = Judge([rule])
    return [alert for made in records for alert in judge.judge(made)]


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


# Warnings: what may be meant


def cut_off(count: int, **other: Any) -> list[StepRecord]:
    values = {"modules": modules(cnn=(5.0, 5.0), mlp=(NAN, NAN)), "missing_modules": ("mlp",), **other}
    return zeros(count, **values)


def test_a_module_that_no_backward_reaches_is_a_warning_for_ten_steps() -> None:
    said = alerts(Zero(), cut_off(12))
    assert [(a.severity, a.state, a.step) for a in said] == [
        ("warning", "firing", 3), ("warning", "resolved", 11), ("critical", "firing", 11),
    ]  # fmt: skip
    assert "the loss does not reach it" in said[0].message


def test_a_gradient_of_zero_that_was_not_written_is_not_reached_either() -> None:
    names = {"parameters": modules(**{"cnn.w": (5.0, 5.0), "mlp.w": (0.0, 0.0)})}
    assert alerts(Zero(), zeros(3, unwritten=("mlp.w",), **names))[0].severity == "warning"
    assert alerts(Zero(), zeros(3, **names))[0].severity == "critical"


def test_no_backward_at_all_is_critical_at_once() -> None:
    (alert,) = alerts(Zero(), cut_off(20, backward_passes=0))
    assert (alert.severity, alert.cause.kind if alert.cause else None) == ("critical", "no-backward")
    assert "no backward pass has written it" in alert.message


def test_a_frozen_module_is_a_warning_for_good() -> None:
    names = {"parameters": modules(**{"cnn.w": (5.0, 5.0), "mlp.w": (NAN, NAN)})}
    (alert,) = alerts(Zero(), cut_off(30, frozen=("mlp.w",), **names))
    assert (alert.severity, alert.cause.kind if alert.cause else None) == ("warning", "frozen")


def test_a_norm_that_faded_to_zero_is_a_warning() -> None:
    def run(last: float) -> list[Alert]:
        fading = [math.exp(math.log(last) * step / 60) for step in range(61)]
        norms = [*fading, *[0.0] * 5]
        return alerts(Zero(), [record(step, n, n, modules=modules(a=(n, n))) for step, n in enumerate(norms, 1)])

    assert [(a.severity, a.step) for a in run(1e-6)] == [("warning", 64)]
    assert "faded" in run(1e-6)[0].message
    assert [(a.severity, a.step) for a in run(0.9)] == [("critical", 64)]


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        ("saturated-tanh", "critical"),
        ("dead-relu", "critical"),
        ("saturated-sigmoid", "warning"),
        ("zero-loss", "warning"),
    ],
)
def test_a_norm_that_faded_to_zero_since_an_activation_died_is_critical(kind: str, severity: str) -> None:
    judge = Judge([Zero()])
    norms = [*(math.exp(-step / 4) for step in range(60)), *[0.0] * 5]
    made = [record(step, n, n, modules=modules(a=(n, n))) for step, n in enumerate(norms, 1)]
    assert [a.severity for each in made for a in judge.judge(each)] == ["warning"]
    assert judge.explained("zero", "actor", "a", cause(kind, "a"), len(made)) is not None
    judge.judge(record(len(made) + 1, 0.0, 0.0, modules=modules(a=(0.0, 0.0))))
    (alert,) = judge.active
    assert (alert.severity, alert.cause and alert.cause.kind) == (severity, kind)


def test_one_module_that_dies_as_the_rest_fades_is_critical() -> None:
    norms = [math.exp(-step / 4) for step in range(60)]
    made = [
        record(step, n, n, modules=modules(a=(n, n), b=(n, n) if step < 50 else (0.0, 0.0)))
        for step, n in enumerate(norms, 1)
    ]
    assert [(a.module, a.severity) for a in alerts(Zero(), made)] == [("b", "critical")]


def test_what_it_remembers_goes_on_after_a_resume() -> None:
    in_turn = [
        record(
            step,
            modules=modules(a=(5.0, 5.0) if step % 2 else (0.0, 0.0), b=(0.0, 0.0) if step % 2 else (5.0, 5.0)),
        )
        for step in range(1, 21)
    ]
    first, second, fresh = Judge([Zero()]), Judge([Zero()]), Judge([Zero()])
    for made in in_turn:
        assert first.judge(made) == []
    second.load_state_dict(first.state_dict())
    silent = [record(20 + step, modules=modules(a=(0.0, 0.0), b=(5.0, 5.0))) for step in range(1, 6)]
    assert [a for made in silent for a in second.judge(made)] == []
    assert len([a for made in silent for a in fresh.judge(made)]) == 1


def test_a_skipped_step_neither_ends_nor_lengthens_a_silence() -> None:
    made = [*zeros(2), *zeros(20, skipped=True), *zeros(1)]
    assert [a.state for a in alerts(Zero(), made)] == ["firing"]
    assert [a.state for a in alerts(Zero(), [*zeros(3), *zeros(20, skipped=True)])] == ["firing"]


# Only health ends it


def lives(pattern: str) -> list[StepRecord]:
    """Steps of a module: alive (#), exactly 0 (0), next to nothing (v)."""
    norms = {"#": 0.5, "0": 0.0, "v": 1e-28}
    return [
        record(step, modules=modules(cnn=(5.0, 5.0), mlp=(norms[sign], norms[sign])))
        for step, sign in enumerate(pattern, 1)
    ]


def test_a_step_of_life_now_and_then_ends_nothing() -> None:
    dying = "########" + "000000000000000#" * 3 + "0000000#0000000000v00000" + "0" * 100
    said = alerts(Zero(), lives(dying))
    assert [(a.state, a.severity, a.step) for a in said] == [("firing", "critical", 11)]
    assert [a.state for a in alerts(Zero(), lives(dying + "#0##0###"))] == ["firing", "resolved"]


def test_what_is_next_to_nothing_is_no_sign_of_life() -> None:
    assert [a.state for a in alerts(Zero(), lives("#" * 9 + "0000" + "v" * 20))] == ["firing"]
    assert [(a.state, a.step) for a in alerts(Zero(), lives("#" * 9 + "0v00v0"))] == [("firing", 13)]
    # Never exactly 0 in three steps: that is for the rule ``vanishing``.
    assert alerts(Zero(), lives("#" * 9 + "v" * 20)) == []


def test_a_death_teaches_nothing_of_what_is_usual() -> None:
    said = alerts(Zero(), lives("#" * 9 + "0" * 100 + "#####" + "0" * 5))
    assert [(a.state, a.step) for a in said] == [("firing", 12), ("resolved", 112), ("firing", 117)]


def test_silences_that_were_never_told_are_still_usual() -> None:
    assert alerts(Zero(), lives("#0" * 40 + "000")) == []


def test_what_is_dead_stays_so_in_a_resumed_run() -> None:
    made = lives("#" * 9 + "0000#0000v000#00v0" + "###" + "0000")
    whole = alerts(Zero(), made)
    assert [a.state for a in whole] == ["firing", "resolved", "firing"]
    for cut in (10, 13, 14, 19, 28, 29, 30):
        first, second = Judge([Zero()]), Judge([Zero()])
        said = [a for one in made[:cut] for a in first.judge(one)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert said + [a for one in made[cut:] for a in second.judge(one)] == whole, cut


def test_a_module_that_is_there_no_more_after_a_resume_is_let_go_of() -> None:
    first, second = Judge([Zero()]), Judge([Zero()])
    alive = [record(step, modules=modules(cnn=(5.0, 5.0), mlp=(1.0, 1.0))) for step in range(1, 6)]
    for made in [*alive, *zeros(4)]:
        first.judge(made)
    assert [alert.module for alert in first.active] == ["mlp"]
    second.load_state_dict(first.state_dict())
    renamed = zeros(8, modules=modules(cnn=(5.0, 5.0), other=(0.0, 0.0)))
    told = [alert for made in renamed for alert in second.judge(made)]
    assert second.errors == 0
    assert {alert.module for alert in told if alert.state == "firing"} == {"other"}


def test_an_optimizer_that_is_frozen_as_a_whole_is_critical() -> None:
    names = {"parameters": modules(**{"cnn.w": (NAN, NAN), "mlp.w": (NAN, NAN)}), "backward_passes": 0}
    gone = modules(cnn=(NAN, NAN), mlp=(NAN, NAN))
    both = {"modules": gone, "missing_modules": ("cnn", "mlp"), "frozen": ("cnn.w", "mlp.w"), **names}
    said = alerts(Zero(), [record(step, NAN, NAN, **both) for step in range(1, 30)])
    assert {(a.severity, a.step, a.cause.kind if a.cause else None) for a in said} == {("critical", 3, "frozen")}
    assert "this optimizer learns nothing" in said[0].message


def test_what_is_told_late_is_what_the_step_shows_and_not_what_was_once() -> None:
    # Missing in some steps, then next to nothing, and then exactly 0: the loss does reach it.
    norms = [1.0] * 30 + [NAN] * 3 + [1e-190] * 30 + [0.0]
    made = [
        record(
            step,
            3.0,
            3.0,
            modules={"mlp": GroupNorms(norm, norm), "head": GroupNorms(3.0, 3.0)},
            parameters={"mlp.weight": GroupNorms(norm, norm), "head.weight": GroupNorms(3.0, 3.0)},
            owners={"mlp": GroupNorms(norm, norm), "head": GroupNorms(3.0, 3.0)},
            missing=("mlp.weight",) if math.isnan(norm) else (),
            missing_owners=("mlp",) if math.isnan(norm) else (),
            backward_passes=1,
        )
        for step, norm in enumerate(norms, 1)
    ]
    judge = Judge([Zero()])
    *_, alert = (alert for each in made for alert in judge.judge(each))
    assert (alert.module, alert.state, alert.step) == ("mlp", "firing", len(made))
    assert alert.message == "the gradient of mlp is exactly 0, so nothing is learned there"


def test_a_part_of_a_sequential_is_not_taken_for_a_number() -> None:
    made = [record(step, modules={"0": GroupNorms(0.0, 0.0), "2": GroupNorms(1.0, 1.0)}) for step in range(1, 5)]
    (found,) = alerts(Zero(), made)
    assert (found.module, found.title) == ("0", "zero at module 0")
    assert found.message.startswith("the gradient of module 0 is exactly 0")


def test_a_pause_like_those_of_others_teaches_how_long_pauses_are() -> None:
    """As where a coin leaves blocks out: the first long pause is a warning, and the next one is none."""
    made = [
        record(step, modules=modules(a=(float(a), float(a)), b=(float(b), float(b)), head=(1.0, 1.0)))
        for step, (a, b) in enumerate(zip("1000111000111", "1101111111111", strict=True), 1)
    ]
    found = alerts(Zero(), made)
    told = [(alert.module, alert.state, alert.severity, alert.step) for alert in found]
    assert told == [("a", "firing", "warning", 4), ("a", "resolved", "warning", 7)]
    assert found[0].message.endswith(
        "nothing is learned there now; other modules pause as well, so that may be meant"
    )
