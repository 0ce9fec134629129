"""What is said of a block is what is said of its records, one by one: the same alerts, and the same memory."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gradwatch.blocks import Block, Facts, NotedClip, StepRow
from gradwatch.judge.clip_given import TORCH_ERROR
from gradwatch.judge.judge import Judge
from gradwatch.records import StepRecord
from gradwatch.rules import ClipBroken, ClipSaturated, Finding, Growth, Rule, Zero, default_rules
from tests.blocks import facts_of, judged_alike, layout_of, made_up_blocks

NAN = float("nan")

STEPS = 200


# A smaller seed is no simpler run.
@settings(deadline=None, max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**32))
def test_a_block_is_judged_as_its_records_are(seed: int) -> None:
    told = judged_alike(block for name in ("actor", "critic") for block in made_up_blocks(seed, STEPS, name))
    severities = Judge(default_rules()).severities
    assert all(alert.severity in severities[alert.rule] for alert in told)


def test_an_old_gradient_after_a_skipped_step_is_held_against_the_step_before_that() -> None:
    layout = layout_of(("mlp.w",), ("mlp",))
    usual, stale = Facts.usual(1), facts_of(layout, stale=("mlp.w",), unwritten=("mlp.w",))
    rows = [StepRow(1, 1.0, usual), StepRow(2, 2.0, usual, skipped=True), StepRow(3, 3.0, stale)]
    norms = np.array([[3.0], [3.0], [2.0]])
    (alert,) = judged_alike([Block(layout, rows, norms, np.array([[3.0], [NAN], [2.0]]))])
    assert (alert.rule, alert.step) == ("stale", 3)


def test_every_rule_fires_and_ends_in_such_runs() -> None:
    told = Counter(
        (a.rule, a.severity, a.state) for seed in range(40) for a in judged_alike(made_up_blocks(seed, 600))
    )
    for rule, severities in Judge(default_rules()).severities.items():
        for severity in severities:
            assert told[rule, severity, "firing"] > 0, (rule, severity)
            assert told[rule, severity, "resolved"] > 0, (rule, severity)


def test_a_step_that_is_ill_takes_back_the_healthy_ones_before_it() -> None:
    """20 steps well and 10 ill in turn, where 25 well ones end an episode."""
    layout, usual, columns = layout_of(("mlp.w",), ("mlp",)), Facts.usual(1), np.zeros(1, dtype=np.intp)
    blocks = []
    for first in range(1, 400, 16):
        limits = [0.1 if step % 30 else 1e3 for step in range(first, first + 16)]
        rows = [
            StepRow(step, float(step), usual, 1, (NotedClip("clip_grad_norm_", limit, 2.0, 100.0, columns),))
            for step, limit in enumerate(limits, first)
        ]
        after = np.minimum(np.array(limits), 100.0)[:, None]
        blocks.append(Block(layout, rows, np.full((16, 1), 100.0), after))
    alerts = judged_alike(blocks, lambda: [ClipSaturated(window=20, clears_after=25)])
    assert [alert.state for alert in alerts] == ["firing"]


def test_a_block_whose_clip_calls_all_saw_less_than_was_there_is_not_fine() -> None:
    """The limit is kept in each step, and a norm of 0.4 consumed where torch had seen 0.1."""
    layout, usual, columns = layout_of(("mlp.w",), ("mlp",)), Facts.usual(1), np.zeros(1, dtype=np.intp)
    clips = (NotedClip("clip_grad_norm_", 1.0, 2.0, 0.1, columns),)
    rows = [StepRow(step, float(step), usual, 1, clips) for step in range(1, 17)]
    norms = np.full((16, 1), 0.4)
    (alert,) = [
        alert for alert in judged_alike([Block(layout, rows, norms, norms)]) if alert.rule == "clip-broken"
    ]
    assert (alert.severity, alert.step) == ("warning", 1)


@pytest.mark.parametrize(
    ("limit", "returned", "before", "after"),
    [
        # No product of two of these is a float64, nor in the range of one.
        (1e150, 1e200, 1e200, 1e200),
        (1e-200, 1e-170, 1e-170, 1e-170),
        # What was Inf when it was clipped, and was replaced by something else then.
        (1.0, math.inf, math.inf, 5.0),
        # Not clipped at all by a call whose norm was a little too small.
        (1.0, 1.99, 2.0, 2.0),
    ],
)
def test_a_limit_that_was_not_kept_is_told_of_a_block_too(
    limit: float, returned: float, before: float, after: float
) -> None:
    told = judged_alike([clipped_alike(limit, returned, before, after)], only_clips)
    assert [(alert.severity, alert.step) for alert in told] == [("critical", 1)]


def test_what_the_largest_error_of_torchs_norm_explains_is_explained_to_all() -> None:
    returned = 2.0 / TORCH_ERROR
    assert 2.0 / returned == TORCH_ERROR
    assert judged_alike([clipped_alike(1.0, returned, 2.0, 1.05)], only_clips) == []


def test_norms_whose_squares_leave_the_range_are_judged_on() -> None:
    """Of a whole of 5e200 a clip call was given 3e200."""
    layout, part = layout_of(("mlp.w", "mlp.v"), ("mlp",)), np.zeros(1, dtype=np.intp)
    clips = (NotedClip("clip_grad_norm_", 3e200, 2.0, 3e200, part),)
    norms = np.array([[3e200, 4e200]])
    (alert,) = judged_alike([Block(layout, [StepRow(1, 1.0, Facts.usual(2), 1, clips)], norms, norms)], only_clips)
    assert (alert.severity, alert.state, alert.value) == ("warning", "firing", pytest.approx(4e200))


def only_clips() -> list[Rule]:
    return [ClipBroken()]


def clipped_alike(limit: float, returned: float, before: float, after: float) -> Block:
    """A block of one parameter, clipped in each step by one call."""
    layout, usual, columns = layout_of(("mlp.w",), ("mlp",)), Facts.usual(1), np.zeros(1, dtype=np.intp)
    clips = (NotedClip("clip_grad_norm_", limit, 2.0, returned, columns),)
    rows = [StepRow(step, float(step), usual, 1, clips) for step in range(1, 17)]
    return Block(layout, rows, np.full((16, 1), before), np.full((16, 1), after))


@pytest.mark.parametrize(
    "norms",
    [
        # Half of the baseline is at 8, so that 20 is not much: until a few more at 1 have come, in the same block.
        [8.0, 1.0] * 20 + [8.0] + [1.0] * 4 + [20.0] * 12,
        # Far above any limit, before there is a baseline.
        [1.0] * 3 + [1e9] * 5,
        # None of them has a logarithm.
        [1.0] * 10 + [0.0] * 10 + [1.0] * 10 + [math.inf] * 3 + [1.0] * 30,
    ],
    ids=["the median falls", "the limit", "none has a logarithm"],
)
def test_a_norm_is_too_large_by_what_came_just_before_it(norms: list[float]) -> None:
    layout, usual = layout_of(("mlp.w",), ("mlp",)), Facts.usual(1)
    rows = [StepRow(step, float(step), usual) for step in range(1, len(norms) + 1)]
    sides = np.array(norms)[:, None]
    first = len(norms) - 16
    blocks = [Block(layout, rows[some], sides[some], sides[some]) for some in (slice(first), slice(first, None))]
    told = judged_alike([block for block in blocks if len(block)])
    assert {alert.rule for alert in told} & {"explosion", "nonfinite"}


def test_what_is_below_the_limit_tells_nothing_of_what_is_usual() -> None:
    layout, usual = layout_of(("a.w", "b.w"), ("a", "b")), Facts.usual(2)
    rows = [StepRow(step, float(step), usual) for step in range(1, 17)]
    norms = np.tile([1.0, 5e-8], (16, 1))
    judged_alike([Block(layout, rows, norms, norms)])


class Above:
    """A rule of a user's: it is asked of each record, and never of a block."""

    id, severity, fires_after, clears_after = "above", "warning", 2, 2

    def __init__(self) -> None:
        self.seen: list[int] = []

    def look(self, record: StepRecord) -> list[Finding]:
        self.seen.append(record.step)
        if record.step == 90:
            raise ZeroDivisionError
        return [Finding(None, record.norm_before, 2.0, "too much")] if record.norm_before > 2.0 else []


class Late(Zero):
    """One of ours with another look: what it inherits to look over blocks is not its own."""

    id = "late"

    def look(self, record: StepRecord) -> list[Finding] | None:
        return super().look(record) if record.step > 50 else None


def mixed() -> list[Rule]:
    return [Above(), *default_rules(), Late()]


def test_rules_of_users_among_ours_see_every_record_and_may_fail() -> None:
    told = [alert for seed in range(8) for alert in judged_alike(made_up_blocks(seed, 150), mixed)]
    assert {"above", "late"} <= {alert.rule for alert in told}
    of_failed = [alert for alert in told if alert.rule == "above" and alert.step >= 90]
    assert {(alert.step, alert.state, alert.message) for alert in of_failed} == {
        (90, "resolved", "the rule failed, and judges no more")
    }
    assert not any(alert.rule == "late" and alert.step <= 50 for alert in told)


def test_one_that_fails_in_the_midst_of_a_block_loses_nothing_but_itself(caplog: pytest.LogCaptureFixture) -> None:
    layout, usual = layout_of(("mlp.w",), ("mlp",)), Facts.usual(1)
    rule = Above()
    judge = Judge([rule, *default_rules()])
    rows = [StepRow(step, float(step), usual) for step in range(81, 97)]
    norms = np.array([[5.0 if step < 86 else 0.0] for step in range(81, 97)])
    alerts = judge.judge_block(Block(layout, rows, norms, norms))
    assert rule.seen == list(range(81, 91))
    told = [(alert.rule, alert.step, alert.state) for alert in alerts]
    assert told == [("above", 82, "firing"), ("above", 87, "resolved"), ("zero", 88, "firing")]
    assert "'above'" in caplog.text


def test_alerts_come_in_the_order_of_steps_and_then_of_rules() -> None:
    order = {rule.id: place for place, rule in enumerate(default_rules())}
    for seed in range(10):
        judge = Judge(default_rules())
        for block in made_up_blocks(seed, 200):
            places = [(alert.step, order[alert.rule]) for alert in judge.judge_block(block)]
            assert places == sorted(places)


def test_growth_goes_on_from_a_state_that_a_longer_stride_has_left() -> None:
    layout, usual = layout_of(("mlp.w",), ("mlp",)), Facts.usual(1)
    norms = 2.0 ** (np.arange(1, 41)[:, None] / 4)
    rows = [StepRow(step, float(step), usual) for step in range(1, 41)]
    first, later = (Block(layout, rows[some], norms[some], norms[some]) for some in (slice(9), slice(9, 40)))
    together, one_by_one = judges = Judge([Growth(stride=2)]), Judge([Growth(stride=2)])
    earlier = Judge([Growth(stride=10)])
    earlier.judge_block(first)
    for judge in judges:
        judge.load_state_dict(earlier.state_dict())
    told = together.judge_block(later)
    assert [alert.rule for alert in told] == ["growth"]
    assert told == [alert for record in later for alert in one_by_one.judge(record)]
