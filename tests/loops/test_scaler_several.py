"""Several optimizers or scalers, and optimizers that unscale inside their step."""

from __future__ import annotations

import pytest
import torch
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of, mlp, overflow
from tests.loops.run import Clip, Run, conformance

SCALE = 2.0**10


@conformance
def test_two_optimizers_one_scaler_one_overflow(run: Run) -> None:
    """Each is skipped for its own gradients only."""
    first, second = mlp(), mlp()
    optimizers = {
        "first": torch.optim.SGD(first.parameters(), lr=0.05),
        "second": torch.optim.Adam(second.parameters(), lr=0.01),
    }
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizers, {"one": first, "two": second}):
        for step in range(6):
            scale = scaler.get_scale()
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            scaler.scale(loss_of(first)).backward()
            scaler.scale(overflow(loss_of(second), step % 2 == 1)).backward()
            scaler.unscale_(optimizers["first"])
            run.before("first")
            norm = clip_grad_norm_(first.parameters(), 1.0)
            run.after("first", Clip(1.0, norm), loss_scale=scale)
            scaler.step(optimizers["first"])
            run.before("second", scale=scale)
            if step % 2 == 1:
                run.skipped("second", loss_scale=scale)
            else:
                run.after("second", scale=scale, loss_scale=scale)
            scaler.step(optimizers["second"])
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_two_scalers(run: Run) -> None:
    first, second = mlp(), mlp()
    optimizers = {
        "first": torch.optim.SGD(first.parameters(), lr=0.05),
        "second": torch.optim.SGD(second.parameters(), lr=0.05),
    }
    scalers = {"first": GradScaler("cpu", init_scale=SCALE), "second": GradScaler("cpu", init_scale=8.0)}
    with run.track(optimizers, {"one": first, "two": second}):
        for step in range(6):
            for name, model in (("first", first), ("second", second)):
                optimizer, scaler = optimizers[name], scalers[name]
                scale = scaler.get_scale()
                bad = (name, step) in (("first", 2), ("second", 3))
                optimizer.zero_grad()
                scaler.scale(overflow(loss_of(model), bad) * (100.0 if bad else 1.0)).backward()
                run.before(name, scale=scale)
                if bad:
                    run.skipped(name, loss_scale=scale)
                else:
                    run.after(name, scale=scale, loss_scale=scale)
                scaler.step(optimizer)
                scaler.update()
    run.leave(scalers=scalers)


@conformance
def test_one_loss_for_two_optimizers(run: Run) -> None:
    """A trunk and a head with an optimizer each, one backward, both unscaled."""
    model = mlp()
    optimizers = {
        "trunk": torch.optim.SGD(model[0].parameters(), lr=0.05),
        "head": torch.optim.SGD(model[3].parameters(), lr=0.05),
    }
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizers, model):
        for step in range(6):
            scale = scaler.get_scale()
            bad = step == 3
            model.zero_grad()
            scaler.scale(overflow(loss_of(model), bad)).backward()
            for name, optimizer in optimizers.items():
                scaler.unscale_(optimizer)
                run.before(name)
            norm = clip_grad_norm_(model.parameters(), 1.0)
            for name, optimizer in optimizers.items():
                if bad:
                    run.skipped(name, Clip(1.0, norm), loss_scale=scale)
                else:
                    run.after(name, Clip(1.0, norm), loss_scale=scale)
                scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


FUSED = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
}


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
@conformance
def test_a_fused_optimizer_unscales_inside_its_kernel(run: Run, make: type[torch.optim.Optimizer]) -> None:
    """Gradients are still scaled when the step begins; on an overflow the step is called and does nothing."""
    model = mlp()
    optimizer = make(model.parameters())
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(9):
            scale = scaler.get_scale()
            bad = step in (1, 2, 5)
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), bad)).backward()
            run.before(scale=scale)
            if bad:
                run.skipped(loss_scale=scale)
            else:
                run.after(scale=scale, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
@conformance
def test_a_fused_optimizer_unscaled_and_clipped(run: Run, make: type[torch.optim.Optimizer]) -> None:
    model = mlp()
    optimizer = make(model.parameters())
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(9):
            scale = scaler.get_scale()
            bad = step in (1, 2, 5)
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), bad)).backward()
            scaler.unscale_(optimizer)
            run.before()
            clip = Clip(1.0, clip_grad_norm_(model.parameters(), 1.0))
            if bad:
                run.skipped("optimizer", clip, loss_scale=scale)
            else:
                run.after("optimizer", clip, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)
