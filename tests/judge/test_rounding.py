"""A gradient that is nothing but rounding from the first step on: suspected by its size, told when a look has shown it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from gradwatch.blocks import Block, Facts, StepRow
from gradwatch.causes import cause
from gradwatch.judge.judge import Judge
from gradwatch.judge.rounding import Rounding
from gradwatch.records import Alert, Cause, StepRecord
from gradwatch.rules import Zero
from tests.blocks import blocks_of, layout_of
from tests.judge.test_owners import made

WHY = cause("constant", "norm", operation="NativeLayerNormBackward0")


def steps(*norms: float, first: int = 1) -> list[StepRecord]:
    return [made(step, {"h.0.attn": norm}) for step, norm in enumerate(norms, first)]


def judged(judge: Judge, records: list[StepRecord]) -> list[Alert]:
    return [alert for record in records for alert in judge.judge(record)]


def answered(kind: Cause = WHY) -> Judge:
    judge = Judge([Zero()])
    assert judged(judge, steps(0.0, 1e-7)) == []
    judge.answered("actor", {"h.0.attn": kind})
    return judge


def test_what_is_small_from_the_first_step_on_is_suspected() -> None:
    for norms, suspected in (
        ((1e-7, 1e-7), True),
        ((0.0, 1e-6), True),
        ((1e-7, 0.0), False),
        ((1e-7, 1e-2), False),
        ((1e-2, 1e-7), False),
    ):
        judge = Judge([Zero()])
        judged(judge, steps(*norms))
        assert judge.suspects("actor") == (("h.0.attn",) if suspected else ()), norms
        assert judge.asks_why == suspected


def test_the_first_steps_are_judged_at_once_and_no_later_ones() -> None:
    for norm, awaited in ((1.0, [True, False, False]), (1e-7, [True, True, False])):
        judge = Judge([Zero()])
        waits = [judge.in_suspense]
        for record in steps(norm, norm):
            judge.judge(record)
            waits.append(judge.in_suspense)
        # A second one only where somebody is small in the first.
        assert waits == awaited


def test_it_is_told_at_the_next_step_with_its_cause() -> None:
    (alert,) = judged(answered(), steps(1e-7, 2e-7, 0.0, 1e-7, first=3))
    assert (alert.rule, alert.module, alert.step, alert.severity, alert.cause) == (
        "zero", "h.0.attn", 3, "critical", WHY,
    )  # fmt: skip
    assert "is 0 but for rounding errors of 1e-07" in alert.message


def test_what_a_look_does_not_show_is_silent_and_asked_once() -> None:
    judge = answered(cause("unknown", "norm"))
    assert judge.suspects("actor") == ()
    assert judged(judge, steps(*[1e-7] * 50, first=3)) == []
    assert not judge.asks_why


def test_it_is_over_when_the_gradient_is_more_than_rounding() -> None:
    judge = answered()
    # The whole of these steps is 3; it falls in a training that has learned what it can, and rounding does not.
    told = judged(judge, steps(1e-7, *[10 * Rounding.SHARE * 3] * 4, first=3))
    assert [(alert.state, alert.step) for alert in told] == [("firing", 3)]
    told = judged(judge, steps(*[2 * Rounding.SHARE_OF_SHOWN * 3] * 4, first=8))
    assert [(alert.state, alert.step) for alert in told] == [("resolved", 10)]


def test_a_resumed_run_knows_it_and_asks_no_more() -> None:
    judge, resumed = answered(), Judge([Zero()])
    resumed.load_state_dict(json.loads(json.dumps(judge.state_dict())))
    records = steps(1e-7, 1e-7, first=3)
    assert judged(resumed, records) == judged(judge, records) != []
    assert resumed.suspects("actor") == ()


@pytest.mark.parametrize("size", [1, 3, 16])
def test_blocks_are_judged_as_their_records_are(size: int) -> None:
    by_record, by_block = answered(), answered()
    records = steps(*[1e-7, 0.0, 3e-7] * 4, *[0.1] * 4, 1e-7, first=3)
    told = [alert for block in blocks_of(records, itertools.repeat(size)) for alert in by_block.judge_block(block)]
    assert told == judged(by_record, records) != []


def test_a_block_without_a_faint_norm_is_still_held_against_what_a_look_has_shown() -> None:
    (block,) = blocks_of(steps(*[1e-6] * 8, first=3), itertools.repeat(16))
    assert [alert.step for alert in answered().judge_block(block)] == [3]


@pytest.mark.parametrize("size", [1, 16])
def test_each_optimizer_is_in_suspense_until_its_first_steps_are_over(size: int) -> None:
    """As long as one of its modules may be nothing but rounding, and no longer; a state goes on from there."""
    judge, records = Judge([Zero()]), steps(*[1e-7] * 3)
    waits = []
    for optimizer in ("actor", "critic"):
        own = [replace(record, optimizer=optimizer) for record in records]
        for block in [*blocks_of(own[:1], itertools.repeat(1)), *blocks_of(own[1:], itertools.repeat(size))]:
            judge.judge_block(block) if size > 1 else judge.judge(block[0])
            waits.append(judge.in_suspense)
    assert waits == [True, *[False] * (len(waits) // 2 - 1)] * 2
    resumed = Judge([Zero()])
    resumed.load_state_dict(judge.state_dict())
    assert not resumed.in_suspense
    resumed.load_state_dict(Judge([Zero()]).state_dict())
    assert resumed.in_suspense


@pytest.mark.parametrize("by_record", [True, False])
def test_an_optimizer_without_modules_is_in_suspense_for_one_step(by_record: bool) -> None:
    """As where only an optimizer is tracked, and as a temperature is that no module holds."""
    judge, layout = Judge([Zero()]), layout_of(["log_alpha"], owners=False)
    waits = [judge.in_suspense]
    for number in range(1, 4):
        block = Block(layout, [StepRow(number, float(number), Facts.usual(1))], np.ones((1, 1)), np.ones((1, 1)))
        judge.judge(block[0]) if by_record else judge.judge_block(block)
        waits.append(judge.in_suspense)
    assert waits == [True, False, False, False]


@pytest.mark.parametrize("by_record", [True, False])
def test_the_first_modules_of_an_optimizer_have_their_first_steps_when_they_come(by_record: bool) -> None:
    """As where a temperature's optimizer is given a module by ``add_param_group``."""
    judge = Judge([Zero()])
    bare = layout_of(["log_alpha"], owners=False)
    full = layout_of(["log_alpha", "a.weight", "b.weight"], ["a", "b"])
    for number in range(1, 7):
        layout, made = (bare, [[1.0]]) if number < 4 else (full, [[1.0, 1.0, 1e-6]])
        norms = np.array(made)
        row = StepRow(number, float(number), Facts.usual(len(layout.names)))
        block = Block(layout, [row], norms, norms)
        judge.judge(block[0]) if by_record else judge.judge_block(block)
    assert judge.suspects("actor") == ("b",)
