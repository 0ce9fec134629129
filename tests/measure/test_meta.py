"""Parameters on the meta device: their gradients have no values, so that nothing is said of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradwatch

STEPS = 24


def test_a_part_without_values_is_left_out_and_the_rest_is_measured() -> None:
    real, meta = nn.Linear(3, 4), nn.Linear(4, 2, device="meta")
    optimizer = torch.optim.SGD([*real.parameters(), *meta.parameters()], lr=0.1)
    with gradwatch.track(optimizer, {"real": real, "meta": meta}) as watch:
        for _ in range(STEPS):
            optimizer.zero_grad()
            real(torch.ones(2, 3)).sum().backward()
            meta(torch.ones(2, 4, device="meta")).sum().backward()
            optimizer.step()
    record = watch.last["optimizer"]
    assert (record.step, record.norm_before) == (STEPS, pytest.approx(8.0))  # 12 weights and 4 biases, each 2
    assert list(record.parameters) == ["real.weight", "real.bias"]
    assert (list(watch.alerts), watch.health().internal_errors) == ([], 0)


def test_an_optimizer_without_values_is_one_without_parameters() -> None:
    model = nn.Linear(3, 4, device="meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.ones(2, 3, device="meta")).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert (watch.last["optimizer"].step, dict(watch.last["optimizer"].parameters)) == (STEPS, {})
    assert (list(watch.alerts), watch.health().internal_errors) == ([], 0)
