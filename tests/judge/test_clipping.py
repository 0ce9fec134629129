"""Rules on clipping: whether it does what it was asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.blocks import Block, NotedClip, StepRow
from gradwatch.judge.judge import Judge
from gradwatch.judge.rule import Rule
from gradwatch.records import Alert, ClipCall, GroupNorms, StepRecord
from gradwatch.rules import ClipBroken, ClipOverflow
from tests.blocks import facts_of, layout_of
from tests.made_up import record
from tests.test_incidents import made_of

NAN = math.nan


def alerts(rule: Rule, records: list[StepRecord]) -> list[Alert]:
    judge = Judge([rule])
    return [alert for made in records for alert in judge.judge(made)]


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


def test_the_rounding_of_a_coarse_type_is_allowed_for() -> None:
    bfloat16 = 2.0**-7
    assert broken(call(1.0045, rounding=bfloat16)) == []
    assert len(broken(call(1.0045, rounding=2.0**-10))) == 1
    assert len(broken(call(1.02, rounding=bfloat16))) == 1


@pytest.mark.parametrize("steps", [1, 16])
@pytest.mark.parametrize("given", [(0, 1), (0,)])
def test_no_record_is_made_of_what_torchs_own_error_lets_through(
    steps: int, given: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million numbers torch's norm is off by 2e-5, and what it leaves is as much above the limit."""
    layout = layout_of(["net.weight", "net.bias"], ["net"])
    columns = np.array(given)
    clips = tuple(NotedClip("clip_grad_norm_", 1.0, 2.0, 1392.6026, columns) for _ in range(3 - len(given)))
    rows = [StepRow(step, 0.0, facts_of(layout), clips=clips) for step in range(1, steps + 1)]
    before, after = (np.tile([norm, 0.0], (steps, 1)) for norm in (1392.63, 1.0000194))
    block = Block(layout, rows, before, after)
    assert [list(ClipBroken().look(made) or ()) for made in block] == [[]] * steps
    monkeypatch.setattr(Block, "_record", None)
    assert ClipBroken().look_over(block, 0) == (steps, ())


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
    assert alert.message.endswith("and scaled that gradient as often")


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


# Where the call was


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (0.0, "before the backward: every gradient was 0"),
        (3.0, "before the last backward or after the previous step"),
        (9.0, "before the last backward or after the previous step"),
        (5.0, "changed after the clip call"),
        (None, "changed after the clip call"),
    ],
)
def test_an_excess_is_told_with_where_the_call_was(returned: float | None, why: str) -> None:
    (alert,) = broken(call(5.0, norm_returned=returned), after=5.0)
    assert alert.severity == "critical"
    assert why in alert.message


def test_the_record_itself_may_tell_that_a_backward_came_later() -> None:
    (alert,) = broken(call(5.0), after=5.0, missed_by_clip=("mlp.weight",))
    assert "before the last backward" in alert.message


def test_a_wrong_order_that_let_nothing_through_so_far_is_a_warning() -> None:
    for calls in (call(0.5, norm_returned=0.1, scope_before=0.5), call(0.5, norm_returned=0.0, scope_before=0.5)):
        (alert,) = broken(calls, after=0.5)
        assert alert.severity == "warning"
        assert "had no hold on this step" in alert.message
    (alert,) = broken(call(0.5, norm_returned=0.5, scope_before=0.5), after=0.5, missed_by_clip=("w",))
    assert alert.severity == "warning"


def test_gradients_that_the_loop_divided_or_decayed_itself_are_in_order() -> None:
    divided = call(0.5, norm_returned=0.5, scope_before=2.0)
    decayed = call(0.8, norm_returned=0.5, scope_before=0.5)
    assert broken(divided, after=0.5) == broken(decayed, after=0.8) == []


def test_measuring_with_an_infinite_limit_is_in_order() -> None:
    assert broken(call(5.0, limit=math.inf, norm_returned=1.0), after=5.0, max_norm=None) == []


def test_a_step_left_out_after_its_clip_call_is_in_order() -> None:
    # The first call was for a step that was never taken: its gradients were zeroed.
    assert (
        broken(
            call(0.5, norm_returned=0.1, scope_before=0.5),
            call(0.5, norm_returned=0.5, scope_before=0.5),
            after=0.5,
        )
        == []
    )


def test_clipping_between_micro_batches() -> None:
    (alert,) = broken(call(1.0), call(1.0), clipped_between=("mlp.weight",), backward_passes=2)
    assert (alert.severity, alert.value) == ("critical", 5.0)
    assert "between backward passes" in alert.message
    assert "mlp" in alert.message
    low = call(0.5, norm_returned=0.5, scope_before=0.5)
    (alert,) = broken(low, low, after=0.5, clipped_between=("mlp.weight",), backward_passes=2)
    assert alert.severity == "warning"


def test_clipping_of_another_optimizer_in_three_steps_running() -> None:
    rule = ClipBroken()

    def look(**fields: Any) -> list[str]:
        return [finding.message for finding in rule.look(record(clips=(), max_norm=None, **fields)) or ()]

    told = [look(clipped_instead="critic") for _ in range(2)]
    told += [look(), *(look(clipped_instead="critic") for _ in range(2)), look(skipped=True)]
    assert told == [[]] * 6
    (message,) = look(clipped_instead="critic")
    assert message.startswith("the clip call before each of the last 3 steps was given the gradients of critic")
    assert look(optimizer="other", clipped_instead="critic") == []


def test_clipping_of_a_part_only() -> None:
    (alert,) = broken(call(1.0), after=7.0)
    assert (alert.severity, alert.threshold) == ("warning", 1.0)
    assert alert.value == pytest.approx(math.sqrt(48))
    assert broken(call(1.0), after=1.2) == []


def test_clipping_of_nothing() -> None:
    spent = ClipCall("clip_grad_norm_", 1.0, 2.0, 0.0)
    (alert,) = broken(spent, after=7.0, max_norm=None)
    assert alert.severity == "critical"
    assert "none of the optimizer's gradients" in alert.message
    assert broken(spent, call(1.0)) == []


def test_clipping_before_unscaling() -> None:
    scaled = call(0.001, norm_returned=5000.0, scope_before=5.0)
    (alert,) = broken(scaled, after=0.001, loss_scale=1000.0)
    assert alert.severity == "critical"
    assert "scaler.unscale_(optimizer)" in alert.remedy
    assert broken(call(1.0), loss_scale=1000.0) == []
    assert broken(call(1.0), loss_scale=1.0) == []


def test_a_limit_below_zero() -> None:
    (alert,) = broken(call(1.0, limit=-1.0), max_norm=-1.0)
    assert "turned every gradient around" in alert.message


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (broken(call(0.001, norm_returned=5000.0), after=0.001, loss_scale=1000.0), "unscale_"),
        (broken(call(1.0, limit=-1.0), max_norm=-1.0), "above 0"),
        (broken(call(1.5)), "directly before the step"),
        (broken(call(5.0, norm_returned=0.0)), "after backward()"),
        (broken(call(5.0, norm_returned=2.0)), "between the last backward() and step()"),
        (broken(call(0.0, norm_returned=0.0, scope_before=None)), "that the optimizer holds"),
        (broken(call(0.2, repeated=("a",))), "once"),
        (broken(call(1.0), clipped_between=("a",), max_norm=1.0), "Clip once, after the last backward()"),
        (broken(call(1.0), after=3.0, max_norm=1.0), "all of the optimizer's parameters"),
        (broken(call(1e-30, norm_returned=0.0, scope_before=1e-30), after=1e-30), "Scale the loss up"),
    ],
)
def test_each_fault_has_the_remedy_that_fits_it(found: list[Alert], remedy: str) -> None:
    (alert,) = found
    assert remedy in alert.remedy
    (told,) = made_of(alert)
    assert told.remedies() == [alert.remedy]
    assert alert.line().endswith(alert.remedy)


def test_a_skipped_step_does_not_end_it() -> None:
    made = [record(1, 5.0, 5.0, clips=(call(5.0),)), *(record(s, skipped=True) for s in range(2, 30))]
    assert [a.state for a in alerts(ClipBroken(), made)] == ["firing"]


def test_an_overflow_carries_its_cause() -> None:
    erased = call(0.0, norm_returned=math.inf, scope_before=2.8e19)
    (alert,) = alerts(ClipOverflow(), [record(1, 2.8e19, 0.0, clips=(erased,))])
    assert alert.cause is not None
    assert (alert.cause.kind, alert.cause.where) == ("clip-overflow", "mlp")
    assert alert.cause.evidence == {"norm": 2.8e19, "norm_returned": math.inf, "limit": 1.0}


# A total norm that is not that of what is clipped


def given(total: float, after: float, limit: float = 1.0) -> list[Alert]:
    """Norms of 3 and 4, which make 5."""
    parameters = {"a.w": GroupNorms(3.0, 3.0 * after / 5.0), "b.w": GroupNorms(4.0, 4.0 * after / 5.0)}
    call = ClipCall("clip_grads_with_norm_", limit, None, None, 5.0, after, norm_given=total)
    return broken(call, after=after, modules={}, parameters=parameters)


@pytest.mark.parametrize(
    ("total", "what"),
    [
        (3.5, "the mean"),
        (4.0, "the largest"),
        (7.0, "the sum"),
        (25.0, "its square"),
        (12.5**0.5, "mean of their squares"),
    ],
)
def test_a_total_norm_that_is_something_else(total: float, what: str) -> None:
    (alert,) = given(total, 5.0 / total)
    assert (alert.severity, alert.value, alert.threshold) == ("critical", total, 5.0)
    assert what in alert.message


def test_a_total_norm_that_may_be_right_is_silent() -> None:
    # The true one, one with the rounding of torch's sums, and what other p-norms may be.
    assert [given(total, 5.0 / total) for total in (5.0, 4.9, 5.1, 2.7, 4.4, 6.3)] == [[]] * 6


@pytest.mark.parametrize("true", [math.inf, 1e200])
def test_an_infinite_total_norm_is_no_square(true: float) -> None:
    call = ClipCall("clip_grads_with_norm_", 1.0, None, None, true, math.nan, norm_given=math.inf)
    assert alerts(ClipBroken(), [record(1, true, true, clips=[call])]) == []


def test_a_wrong_total_norm_that_changed_nothing_is_a_warning() -> None:
    (alert,) = given(3.5, 5.0, limit=10.0)
    assert alert.severity == "warning"


@pytest.mark.parametrize("total", ["mean", "a part", "true", "infinite"])
def test_total_norms_in_a_loop(total: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.randn(16, 4)).pow(2).mean().backward()
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            norms = torch.stack([g.norm() for g in gradients])
            made = {
                "mean": norms.mean(),
                "a part": norms[2:].norm(),
                "true": norms.norm(),
                "infinite": torch.stack([g.abs().max() for g in gradients]).max(),
            }
            nn.utils.clip_grads_with_norm_(net.parameters(), 0.01, made[total])
            optimizer.step()
    assert [alert.rule for alert in watch.alerts] == (["clip-broken"] if total in ("mean", "a part") else [])


def test_clipping_in_a_hook_of_each_parameter_is_in_order() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    true: list[float] = []

    def clips(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        true.append(float(parameter.grad.norm()))
        nn.utils.clip_grad_norm_([parameter], 0.01)

    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(clips)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.randn(16, 4)).pow(2).mean().backward()
            optimizer.step()
    assert watch.alerts == []
    assert watch["optimizer"].norm_before == pytest.approx(math.hypot(*true[-4:]), rel=1e-5)
    assert watch["optimizer"].norm_after == pytest.approx(0.02, rel=1e-3)
