"""A module that has lost most of its share: suspected by its size, told when a look has shown a dead activation."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.causes import cause
from gradwatch.judge.judge import Judge
from gradwatch.records import Alert, Cause, StepRecord
from gradwatch.rules import Vanishing
from tests.blocks import blocks_of
from tests.judge.test_owners import made
from tests.reachable import reachable_bytes

ILL = "h.0.attn"
DEAD = cause("saturated-tanh", "h.0.act", operation="TanhBackward0")
WELL, FALLEN = 1e-1, 1e-5


def steps(*norms: float, first: int = 1) -> list[StepRecord]:
    return [made(step, {ILL: norm}) for step, norm in enumerate(norms, first)]


def judged(judge: Judge, records: list[StepRecord]) -> list[Alert]:
    return [alert for record in records for alert in judge.judge(record)]


def fallen() -> Judge:
    judge = Judge([Vanishing()])
    assert judged(judge, steps(*[WELL] * 5, *[FALLEN] * 5)) == []
    return judge


def answered(found: Cause = DEAD) -> Judge:
    judge = fallen()
    judge.answered("actor", {ILL: found})
    return judge


def test_what_has_lost_three_decades_of_its_share_for_five_steps_is_suspected() -> None:
    for norms, suspected in (
        ([WELL] * 5 + [WELL / 1100] * 5, True),
        ([WELL] * 5 + [WELL / 900] * 5, False),
        ([WELL] * 5 + [FALLEN] * 4, False),
        ([WELL] * 5 + [FALLEN, FALLEN, WELL, FALLEN, FALLEN, FALLEN], False),
        ([WELL] * 5 + [FALLEN, FALLEN, 0.0, FALLEN, FALLEN, FALLEN], False),
        # It was always so.
        ([FALLEN] * 20, False),
        # The usual share follows slowly, and the highest counts.
        ([WELL / 1.1**step for step in range(85)], True),
    ):
        judge = Judge([Vanishing()])
        assert judged(judge, steps(*norms)) == []
        assert judge.suspects("actor") == ((ILL,) if suspected else ()), norms
        assert judge.asks_why == suspected


def test_whoever_is_low_is_looked_at_closely_until_a_look_has_told() -> None:
    judge = Judge([Vanishing()])
    waits = []
    for one in steps(*[WELL] * 3, *[FALLEN] * 5):
        judge.judge(one)
        waits.append(judge.in_suspense)
    assert waits == [False] * 3 + [True] * 5
    judge.answered("actor", {ILL: DEAD})
    assert not judge.in_suspense
    judged(judge, steps(FALLEN, FALLEN, first=9))
    assert not judge.in_suspense


def test_where_all_fall_alike_nobody_is_suspected() -> None:
    judge = Judge([Vanishing()])
    owners = ("h.0.attn", "h.1")
    norms = [1.0] * 5 + [1e-5] * 20
    judged(judge, [made(i, dict.fromkeys(owners, norm), owners) for i, norm in enumerate(norms, 1)])
    assert judge.suspects("actor") == ()


def test_it_is_told_at_the_next_step_with_its_cause_and_is_critical_where_it_lasts() -> None:
    told = judged(answered(), steps(*[FALLEN] * 110, first=11))
    assert [(a.state, a.severity, a.step) for a in told] == [
        ("firing", "warning", 11), ("resolved", "warning", 110), ("firing", "critical", 110),
    ]  # fmt: skip
    alert = told[0]
    assert (alert.rule, alert.module, alert.cause) == ("vanishing", ILL, DEAD)
    assert alert.value < alert.threshold == pytest.approx(1e-4, rel=0.01)
    assert "has all but vanished: its norm is 1e-05" in alert.message


def test_what_a_look_does_not_show_is_asked_again_when_two_decades_more_are_lost() -> None:
    """Ten times what is there now is the highest that counts then, and three decades below that it is asked again."""
    judge = Judge([Vanishing()])
    assert judged(judge, steps(*[WELL] * 5, *[5e-5] * 5)) == []
    judge.answered("actor", {ILL: cause("unknown", ILL)})
    assert judge.suspects("actor") == ()
    for norms, suspected in (([5e-5] * 50, False), ([6e-7] * 50, False), ([4e-7] * 5, True)):
        assert judged(judge, steps(*norms)) == []
        assert (judge.suspects("actor") == (ILL,)) is suspected
        assert judge.asks_why is suspected


@pytest.mark.parametrize(
    "norms",
    [[WELL * times for times in range(1, 8)], [5e-5, 6e-5], [WELL] * 80 + [FALLEN]],
    ids=["well", "as it was", "falls"],
)
def test_many_blocks_running_leave_what_their_steps_leave(norms: list[float]) -> None:
    """Also of what a look has proved nothing of, so that less is the highest that counts; and it piles nothing up."""
    together, one_by_one = judges = Judge([Vanishing()]), Judge([Vanishing()])
    kept = []
    for judge in judges:
        judged(judge, steps(*[WELL] * 5, *[5e-5] * 5))
        judge.answered("actor", {ILL: cause("unknown", ILL)})
    records = steps(*itertools.islice(itertools.cycle(norms), 16 * 43), first=11)
    for number, block in enumerate(blocks_of(records, itertools.repeat(16)), 1):
        assert together.judge_block(block) == judged(one_by_one, list(block))
        assert together.suspects("actor") == one_by_one.suspects("actor")
        # Twice the blocks that are put aside, and the last ones: to count is dear.
        if number <= 10 or number == 43:
            kept.append(reachable_bytes(together, but=(type(block.layout),)))
    assert together.state_dict() == one_by_one.state_dict()
    assert kept[-1] < 1.1 * max(kept[:-1])


def test_who_is_suspected_after_a_look_has_begun_is_not_answered_by_it() -> None:
    judge = fallen()
    judge.answered("actor", {"h.1.attn": DEAD})
    assert judge.suspects("actor") == (ILL,)


def test_below_the_limit_it_is_critical_at_once() -> None:
    told = judged(answered(), steps(*[FALLEN] * 3, *[5e-8] * 3, first=11))
    assert [(a.state, a.severity, a.step) for a in told if a.state == "firing"] == [
        ("firing", "warning", 11), ("firing", "critical", 14),
    ]  # fmt: skip


def test_a_look_proves_it_where_the_activation_took_more_than_half_of_what_the_module_has_lost() -> None:
    """It has lost four decades, and the activation may have taken one before; other causes are what they are."""
    judge = fallen()
    for kind, decades, held in (
        ("saturated-tanh", 3.1, True),
        ("saturated-tanh", 2.9, False),
        ("dead-relu", 2.9, False),
        ("zero-loss", 2.9, True),
    ):
        found = cause(kind, "h.0.act", operation="TanhBackward0", decades_lost_here=decades)
        weighed = judge.weighed("vanishing", "actor", ILL, found)
        if held:
            assert weighed == found
        else:
            assert weighed.kind == "unknown"
            assert weighed.evidence["decades_lost_since"] == pytest.approx(4.0, abs=0.01)
            assert "has faded as well" in weighed.evidence["reason"]
    assert judge.weighed("zero", "actor", ILL, DEAD) == DEAD
    # Of a module that was never above the limit nothing is known.
    assert Judge([Vanishing()]).weighed("vanishing", "actor", ILL, DEAD) == DEAD


def test_a_dead_relu_is_such_a_proof_and_a_shut_gate_is_none() -> None:
    for kind, alerts in (("dead-relu", 1), ("saturated-sigmoid", 0), ("zero-weight", 0)):
        assert len(judged(answered(cause(kind, "h.0.act")), steps(*[FALLEN] * 8, first=11))) == alerts


def test_it_is_over_when_the_share_has_come_back_to_stay() -> None:
    judge = answered()
    told = judged(judge, steps(FALLEN, WELL, FALLEN, *[WELL] * 5, first=11))
    assert [(alert.state, alert.step) for alert in told] == [("firing", 11), ("resolved", 18)]
    # It is asked about anew.
    assert judged(judge, steps(*[FALLEN] * 5, first=19)) == []
    assert judge.suspects("actor") == (ILL,)


def test_a_resumed_run_knows_it() -> None:
    for judge in (answered(), fallen()):
        resumed = Judge([Vanishing()])
        resumed.load_state_dict(json.loads(json.dumps(judge.state_dict())))
        records = steps(*[FALLEN] * 3, *[WELL] * 6, first=11)
        assert judged(resumed, records) == judged(judge, records)
        assert resumed.state_dict() == judge.state_dict()


@pytest.mark.parametrize("size", [1, 3, 16])
def test_blocks_are_judged_as_their_records_are(size: int) -> None:
    by_record, by_block = answered(), answered()
    records = steps(*[FALLEN, 0.0, FALLEN] * 4, *[WELL] * 7, *[WELL * 3] * 60, *[WELL / 900] * 6, first=11)
    told = [alert for block in blocks_of(records, itertools.repeat(size)) for alert in by_block.judge_block(block)]
    assert told == judged(by_record, records) != []
    assert by_block.suspects("actor") == by_record.suspects("actor") == (ILL,)
    assert by_block.state_dict() == by_record.state_dict()


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_saturated_tanh_beside_a_living_branch_is_told(scale: float) -> None:
    """A slope of 1e-5 leaves far more than the limit of 1e-7, and more than a look asks about by itself."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 8), "head": nn.Sequential(nn.Linear(8, 2), nn.Tanh())})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(120):
            if step == 30:
                nn.init.constant_(model["head"][0].bias, 6.5)  # type: ignore[index]
            after = model["body"](torch.randn(16, 4))
            optimizer.zero_grad()
            (scale * (model["head"](after).square().mean() + after.square().mean())).backward()
            optimizer.step()
    (alert,) = watch.alerts
    assert (alert.rule, alert.severity, alert.module) == ("vanishing", "warning", "head.0")
    assert alert.cause is not None
    assert (alert.cause.kind, alert.cause.where) == ("saturated-tanh", "head.1")
    assert alert.value > 1e-6


@pytest.mark.parametrize(
    ("power", "units", "told"),
    [(2, 1.0, {"unknown"}), (2, 100.0, set()), (1, 1.0, {"saturated-tanh"})],
    ids=["squared", "squared, the largest branch at first", "absolute"],
)
def test_a_tanh_that_is_right_beside_a_branch_that_never_is(power: int, units: float, told: set[str]) -> None:
    """Its slope falls with its error; of an absolute error, which does not fade, nothing tells it from a dead one."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 8), "head": nn.Sequential(nn.Linear(8, 2), nn.Tanh())})
    nn.init.zeros_(model["head"][0].weight)  # type: ignore[index]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(230):
            # From 0 to within 1e-5 of 1.
            nn.init.constant_(model["head"][0].bias, step / 37.5)  # type: ignore[index]
            after = model["body"](torch.randn(16, 4))
            optimizer.zero_grad()
            ((units * (1.0 - model["head"](after))).pow(power).mean() + after.square().mean()).backward()
            optimizer.step()
    kinds = {alert.cause.kind for alert in watch.alerts if alert.cause is not None}
    assert kinds == told
    for alert in watch.alerts:
        assert (alert.rule, alert.severity, alert.module) == ("vanishing", "warning", "head.0")
        # Where it is right it is told below the limit alone, which is the limit's doing.
        assert power == 1 or alert.value < 1e-7
