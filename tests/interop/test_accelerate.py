"""Accelerate, unmodified: it wraps the optimizer, lets it step on each second batch only, and clips."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.interop.library import library
from tests.interop.probe import Probe
from tests.interop.scaling import with_scaler
from tests.loops.models import mlp
from tests.loops.run import Run, conformance

accelerate = library("accelerate")

pytestmark = pytest.mark.interop

STEPS, ACCUMULATED, LIMIT = 6, 2, 0.5


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@conformance
def test_accumulation_and_clipping(run: Run, precision: str) -> None:
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()
    accelerator = accelerate.Accelerator(
        cpu=True, mixed_precision=precision, gradient_accumulation_steps=ACCUMULATED
    )
    # Too large for float16: steps are left out until it fits.
    scaler = with_scaler(accelerator, 2.0**20) if precision == "fp16" else None
    bare = mlp()
    optimizer = torch.optim.AdamW(bare.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    data = torch.utils.data.TensorDataset(torch.randn(STEPS * ACCUMULATED * 8, 4))
    batches = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    model, optimizer, batches, scheduler = accelerator.prepare(bare, optimizer, batches, scheduler)
    assert isinstance(optimizer, accelerate.optimizer.AcceleratedOptimizer)
    with run.track(optimizer, model) as tracker, Probe(run, {"optimizer": optimizer}, scaler=scaler):
        train(accelerator, model, optimizer, batches, scheduler)
    assert len(tracker.truths) == STEPS
    assert {truth.passes for truth in tracker.truths} == {ACCUMULATED}
    assert {truth.max_norm for truth in tracker.truths} == {LIMIT}
    assert any(truth.clipped for truth in tracker.truths)
    assert [truth.skipped for truth in (tracker.truths[0], tracker.truths[-1])] == [scaler is not None, False]
    assert scaler is not None or tracker.watch is None or tracker.watch.alerts == []


def train(accelerator: Any, model: nn.Module, optimizer: Any, batches: Any, scheduler: Any) -> None:
    for (batch,) in batches:
        with accelerator.accumulate(model):
            loss = (model(batch) - 1).square().mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), LIMIT)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
