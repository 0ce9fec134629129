"""The numbers of whole loops, against float64 on the host."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradwatch
from tests.gpu.devices import DEVICES
from tests.gpu.reference import Noted, host_norm
from tests.gpu.training import LOOPS

STEPS = 20
# Squares of float32 are exact in float64; their sum is rounded in a different order.
CLOSE = 1e-12


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("device", DEVICES)
def test_before_and_after_clipping(device: str, name: str) -> None:
    loop, noted = LOOPS[name](device), Noted()
    with gradwatch.track(loop.optimizers, loop.modules) as watch:
        for _ in range(STEPS):
            loop.step(noted)
    for optimizer in loop.optimizers:
        records = [record for record in watch.history if record.optimizer == optimizer]
        expected = noted.norms(optimizer)
        assert len(records) == len(expected) == STEPS
        for record, (before, after) in zip(records, expected, strict=True):
            assert record.norm_before == pytest.approx(before, rel=CLOSE)
            assert record.norm_after == pytest.approx(after, rel=CLOSE)
        assert any(record.clipped for record in records)


@pytest.mark.parametrize("device", DEVICES)
def test_parameters_on_two_devices(device: str) -> None:
    near, far = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([4.0], device=device))
    optimizer = torch.optim.SGD([near, far], lr=0.01)
    with gradwatch.track(optimizer) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            (near.square().sum() / 2 + (far.square().sum() / 2).to("cpu")).backward()
            expected = host_norm([near.grad, far.grad])  # type: ignore[list-item]
            optimizer.step()
    assert watch.history[0].norm_before == 5.0
    assert watch["optimizer"].norm_before == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("device", DEVICES)
def test_what_is_not_finite_is_named(device: str, bad: float) -> None:
    first, second = (nn.Parameter(torch.ones(4, device=device)) for _ in range(2))
    optimizer = torch.optim.SGD([first, second], lr=0.0)
    with gradwatch.track(optimizer) as watch:
        for factor in (1.0, bad):
            first.grad, second.grad = torch.ones_like(first), torch.ones_like(second)
            second.grad[2] = factor
            optimizer.step()
    sound, ill = watch.history
    assert (sound.nonfinite, ill.nonfinite) == ((), ("group0.param1",))
    assert not math.isfinite(ill.norm_before)
    assert [alert.rule for alert in watch.alerts] == ["nonfinite"]
