"""What torch itself gets wrong while clipping is told in words, with the true norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

import gradwatch
from gradwatch.records import Alert
from tests.reference import exact_norm


def one_step(
    gradients: list[Tensor], times: int = 1, limit: float = 1.0
) -> tuple[gradwatch.StepRecord, list[Alert]]:
    """A step with these gradients, each of which is given to the clip call so many times."""
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    with gradwatch.track(optimizer) as watch:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        clip_grad_norm_(parameters * times, limit)
        optimizer.step()
    return watch["optimizer"], watch.alerts


def test_gradients_whose_squares_overflow_are_erased_and_it_is_said() -> None:
    gradients = [torch.tensor([2e19, 2e19]), torch.tensor([1.0])]
    record, alerts = one_step(gradients)
    assert record.clips[0].norm_returned == float("inf")
    assert record.norm_before == pytest.approx(exact_norm(gradients), rel=1e-7)
    assert (record.norm_after, record.nonfinite) == (0.0, ())
    (alert,) = [a for a in alerts if a.rule == "clip-overflow"]
    assert f"true norm is {exact_norm(gradients):.6g}" in alert.message


def test_a_norm_that_underflows_to_0_is_said() -> None:
    gradients = [torch.full((4,), 1e-23)]
    record, alerts = one_step(gradients)
    assert record.clips[0].norm_returned == 0.0
    assert record.norm_after == record.norm_before == pytest.approx(exact_norm(gradients), rel=1e-7)
    (alert,) = alerts
    assert (alert.rule, alert.severity) == ("clip-broken", "warning")
    assert f"true norm is {exact_norm(gradients):.6g}" in alert.message


def test_one_inf_erases_the_rest_and_it_is_said() -> None:
    record, alerts = one_step([torch.tensor([float("inf"), 2.0]), torch.tensor([3.0, 4.0])])
    assert record.nonfinite == ("group0.param0",)
    assert record.parameters["group0.param1"] == (5.0, 0.0)
    (alert,) = [a for a in alerts if a.rule == "nonfinite"]
    assert "erased the finite rest, whose true norm is 5" in alert.message


def test_a_tied_parameter_passed_twice_is_counted_and_scaled_twice_and_it_is_said() -> None:
    record, alerts = one_step([torch.tensor([3.0, 4.0])], times=2)
    assert record.norm_before == 5.0
    assert record.clips[0].norm_returned == pytest.approx(5.0 * 2**0.5)
    assert record.clips[0].repeated == ("group0.param0",)
    # Scaled twice by 1 / (5 * sqrt(2)).
    assert record.norm_after == pytest.approx(5.0 / 50.0, rel=1e-5)
    (alert,) = alerts
    assert (alert.rule, alert.severity) == ("clip-broken", "critical")
    assert "torch computed a norm of 7.07107 where the true one is 5" in alert.message
    assert "scaled that gradient as often" in alert.message


def test_none_of_this_is_said_of_gradients_that_torch_gets_right() -> None:
    assert one_step([torch.tensor([3.0, 4.0]), torch.tensor([1e-15])])[1] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rounding_of_half_precision_is_no_broken_clipping(dtype):
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            (10 * model(torch.randn(16, 8).to(dtype))).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    assert max(record.norm_after for record in watch.history) > 0.5 * (1 + 1e-5)
    assert watch.alerts == []


@pytest.mark.parametrize("converted_at", [0, 5])
def test_neither_is_that_of_a_model_that_is_converted_while_it_is_tracked(converted_at):
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(20):
            if step == converted_at:
                model.to(torch.bfloat16)
            optimizer.zero_grad()
            (10 * model(torch.randn(16, 8).to(model.weight.dtype))).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    assert max(record.norm_after for record in watch.history) > 0.5 * (1 + 1e-5)
    assert [record.clips[0].rounding for record in watch.history] == [2**-23] * converted_at + [2**-7] * (
        20 - converted_at
    )
    assert watch.alerts == []
