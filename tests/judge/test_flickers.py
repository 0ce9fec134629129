"""A gradient that is exactly 0 in most steps: suspected when its median is 0, told where an activation is dead."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.causes import cause
from gradwatch.judge.flickers import Flickers
from gradwatch.judge.judge import Judge
from gradwatch.records import Alert, StepRecord
from gradwatch.rules import Zero
from tests.blocks import blocks_of
from tests.judge.test_owners import made

WHY = cause("saturated-tanh", "tanh")
UNUSED = cause("unused", "wte")

# Never 0 three times running, so that no silence is told by itself.
MOSTLY = [0, 0, 1]
SELDOM = [1, 1, 0]


def steps(pattern: list[int], count: int, first: int = 1) -> list[StepRecord]:
    return [made(step, {"wte": float(pattern[step % len(pattern)])}) for step in range(first, first + count)]


def one_by_one(judge: Judge, records: list[StepRecord]) -> list[Alert]:
    return [alert for record in records for alert in judge.judge(record)]


def in_blocks(judge: Judge, records: list[StepRecord]) -> list[Alert]:
    return [alert for block in blocks_of(records, itertools.repeat(16)) for alert in judge.judge_block(block)]


def shown(pattern: list[int] = MOSTLY) -> Judge:
    judge = Judge([Zero()])
    one_by_one(judge, steps(pattern, 47))
    judge.answered("actor", {"wte": WHY})
    return judge


@pytest.mark.parametrize("judged", [one_by_one, in_blocks])
@pytest.mark.parametrize(("pattern", "suspected"), [(MOSTLY, ("wte",)), (SELDOM, ()), ([0, 1], ())])
def test_what_is_0_in_most_steps_is_suspected(
    judged: Callable[[Judge, list[StepRecord]], list[Alert]], pattern: list[int], suspected: tuple[str, ...]
) -> None:
    judge = Judge([Zero()])
    assert judged(judge, steps(pattern, 64)) == []
    assert judge.suspects("actor") == suspected
    # So that its step is judged at once, and a look is taken.
    assert judge.in_suspense == judge.asks_why == bool(suspected)


@pytest.mark.parametrize("judged", [one_by_one, in_blocks])
def test_it_is_told_with_what_a_look_has_found_until_it_is_seldom_0(
    judged: Callable[[Judge, list[StepRecord]], list[Alert]],
) -> None:
    judge = shown()
    (alert,) = judged(judge, steps(MOSTLY, 60, first=48))
    assert (alert.rule, alert.module, alert.step, alert.severity, alert.cause) == (
        "zero",
        "wte",
        48,
        "warning",
        WHY,
    )
    assert "exactly 0 in 32 of the last 48 steps" in alert.message
    (over,) = judged(judge, steps([1], 60, first=108))
    # 12 of 48 are a quarter; then three steps without a finding.
    assert (over.state, over.step) == ("resolved", 108 + 30 + 2)


def test_calm_blocks_count_as_their_steps() -> None:
    pattern = [*[0, 0, 1] * 8, *[1] * 40]
    judges = Judge([Zero()]), Judge([Zero()])
    one_by_one(judges[0], steps(pattern, len(pattern) - 1))
    in_blocks(judges[1], steps(pattern, len(pattern) - 1))
    known, in_calm_blocks = [judge.state_dict()["rules"]["zero"]["actor"]["flickers"] for judge in judges]
    assert known == in_calm_blocks != []
    # What a look has shown is told in the next step, also where that is one of a calm block.
    assert [alert.step for alert in in_blocks(shown(), steps([1], 16, first=48))] == [48]


def test_what_is_told_as_silent_is_not_told_twice() -> None:
    silent = Judge([Zero()])
    one_by_one(silent, steps([0], 64))
    assert silent.suspects("actor") == ()
    judge = shown()
    alerts = one_by_one(judge, steps(MOSTLY, 1, first=48)) + one_by_one(judge, steps([0], 60, first=49))
    assert [(a.state, a.severity) for a in alerts] == [
        ("firing", "warning"), ("resolved", "warning"), ("firing", "critical"),
    ]  # fmt: skip


def test_a_look_that_proves_nothing_is_repeated_ever_more_seldom() -> None:
    flickers, asked = Flickers(3), []
    for step in range(1, 2000):
        flickers.take(("wte",) if step % 3 else ())
        if flickers.suspects:
            asked.append(step)
            flickers.answered({"wte": UNUSED})
    assert asked[0] < Flickers.WINDOW
    assert [later - earlier for earlier, later in itertools.pairwise(asked)] == [32, 64, 128, 256, 512]


def test_what_is_remembered_survives_json() -> None:
    judge, resumed = shown(), Judge([Zero()])
    one_by_one(judge, steps(MOSTLY, 5, first=48))
    resumed.load_state_dict(json.loads(json.dumps(judge.state_dict())))
    for one in (judge, resumed):
        assert one_by_one(one, steps(MOSTLY, 20, first=53)) == []
    assert [a.step for a in one_by_one(resumed, steps([1], 60, first=73))] == [
        a.step for a in one_by_one(judge, steps([1], 60, first=73))
    ]


def test_a_module_that_a_state_knows_and_the_run_does_not_is_passed_over() -> None:
    resumed = Judge([Zero()])
    resumed.load_state_dict(shown().state_dict())
    assert one_by_one(resumed, [made(step, owners=["head"]) for step in range(48, 60)]) == []
    assert resumed.errors == 0


@pytest.mark.parametrize("squashed", [True, False])
def test_a_tanh_that_most_batches_saturate_is_told(squashed: bool) -> None:
    torch.manual_seed(0)
    body, out = nn.Linear(6, 32), nn.Linear(32, 2)
    model = nn.Sequential(body, nn.ReLU(), out, nn.Tanh())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(100):
            x = torch.randn(32, 6)
            optimizer.zero_grad()
            (model(x * 1e4 if squashed else x) - x[:, :2]).square().mean().backward()
            optimizer.step()
    told = [(alert.rule, alert.severity, alert.cause and alert.cause.kind) for alert in watch.alerts]
    assert 40 < sum(record.norm_before == 0.0 for record in watch.history) < 95 or not squashed
    assert told == ([("zero", "warning", "saturated-tanh")] * 2 if squashed else [])
