"""Mixed precision: a GradScaler around the loss and the step. Norms are of the unscaled gradients, always."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

SCALE = 2.0**10


@conformance
def test_no_clipping(run: Run) -> None:
    """Unscaling happens inside ``scaler.step``."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            run.after(scale=SCALE, loss_scale=SCALE)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_unscale_and_clip(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            scaler.unscale_(optimizer)
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm), loss_scale=SCALE)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_unscale_and_own_code(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            scaler.unscale_(optimizer)
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.25)  # type: ignore[union-attr]
            run.after(loss_scale=SCALE)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_unscaled_by_own_code_in_no_scaler(run: Run) -> None:
    """Static scaling by hand: gradwatch cannot know of a factor; the norm before is that of the backward."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (loss_of(model) * SCALE).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.div_(SCALE)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@conformance
def test_clipping_before_unscaling(run: Run) -> None:
    """A fault that people make: the limit is held against scaled gradients."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            run.before(scale=SCALE)
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm), scale=SCALE, loss_scale=SCALE)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_accumulation(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for batch in range(18):
            scaler.scale(loss_of(model) / 3).backward()
            if batch % 3 == 2:
                scaler.unscale_(optimizer)
                run.before()
                clip_grad_value_(model.parameters(), 0.1)
                clip = Clip(0.1, None, None, "clip_grad_value_")
                run.after("optimizer", clip, passes=3, loss_scale=SCALE)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    run.leave(scaler=scaler)


@conformance
def test_the_factor_grows_and_is_set_by_hand(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE, growth_factor=4.0, growth_interval=2)
    with run.track(optimizer, model):
        for step in range(8):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            run.after(scale=scale, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update(3.0 if step == 4 else None)
        assert scaler.get_scale() > 3.0
    run.leave(scaler=scaler)


@conformance
def test_a_disabled_scaler(run: Run) -> None:
    """Every method passes through: no factor was used."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", enabled=False)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            scaler.unscale_(optimizer)
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            scaler.step(optimizer)
            scaler.update()


@conformance
def test_a_scaler_in_some_steps_only(run: Run) -> None:
    """Mixed precision is switched on half way: the factor of one step is not that of the next."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(8):
            optimizer.zero_grad()
            if step % 2:
                scaler.scale(loss_of(model)).backward()
                run.after(scale=SCALE, loss_scale=SCALE)
                scaler.step(optimizer)
                scaler.update()
            else:
                loss_of(model).backward()
                run.after()
                optimizer.step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@conformance
def test_autocast_with_a_scaler(run: Run, dtype: torch.dtype) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for _ in range(6):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = loss_of(model, 0.1)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.05)
            run.after("optimizer", Clip(0.05, norm), loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_autocast_alone(run: Run) -> None:
    model: nn.Module = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model)
            loss.backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()
