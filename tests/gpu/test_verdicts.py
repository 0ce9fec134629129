"""Verdicts, causes and the guard on the device."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradwatch
from tests.gpu.devices import DEVICES


@pytest.mark.parametrize("device", DEVICES)
def test_a_dead_relu_is_named_with_its_cause(device: str) -> None:
    torch.manual_seed(2)
    body, head = nn.Sequential(nn.Linear(8, 16), nn.ReLU()).to(device), nn.Linear(16, 1).to(device)
    nn.init.constant_(body[0].bias, -100.0)
    x = torch.randn(32, 8, device=device)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)
    with gradwatch.track(optimizer, {"body": body, "head": head}) as watch:
        for _ in range(60):
            optimizer.zero_grad()
            (head(body(x)) - 1).square().mean().backward()
            optimizer.step()
    zero = [alert for alert in watch.alerts if alert.rule == "zero"]
    assert str(zero[0].module).startswith("body")
    assert [alert.cause.kind for alert in zero if alert.cause is not None] == ["dead-relu"]


def with_bad_gradient(device: str) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.ones(4, device=device))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.full_like(weight, math.nan)
    return weight, optimizer


@pytest.mark.parametrize("device", DEVICES)
def test_guard_skip_leaves_the_step_out(device: str) -> None:
    weight, optimizer = with_bad_gradient(device)
    with gradwatch.track(optimizer, guard="skip") as watch:
        optimizer.step()
        assert weight.tolist() == [1.0] * 4
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert [record.skipped for record in watch.history] == [True, False]
    assert max(weight.tolist()) < 1.0


@pytest.mark.parametrize("device", DEVICES)
def test_guard_raise_stops_the_step(device: str) -> None:
    weight, optimizer = with_bad_gradient(device)
    with gradwatch.track(optimizer, guard="raise"), pytest.raises(gradwatch.errors.NonFiniteGradientError):
        optimizer.step()
    assert weight.tolist() == [1.0] * 4
