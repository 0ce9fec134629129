"""Steps that a GradScaler leaves out: they have their record, and nothing was consumed."""

from __future__ import annotations

import math

import pytest
import torch
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of, mlp, overflow
from tests.loops.run import Clip, Run, conformance

SCALE = 2.0**10


@pytest.mark.parametrize("clipped", [False, True])
@conformance
def test_an_overflow_skips_the_step(run: Run, clipped: bool) -> None:
    """The optimizer is not called at all; the factor halves."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(9):
            scale = scaler.get_scale()
            bad = step in (1, 2, 5)
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), bad)).backward()
            clips: list[Clip] = []
            if clipped:
                scaler.unscale_(optimizer)
                run.before()
                clips.append(Clip(1.0, clip_grad_norm_(model.parameters(), 1.0)))
                scale_now = 1.0
            else:
                run.before(scale=scale)
                scale_now = scale
            if bad:
                run.skipped("optimizer", *clips, loss_scale=scale)
            else:
                run.after("optimizer", *clips, scale=scale_now, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == SCALE / 8
    run.leave(scaler=scaler)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@conformance
def test_one_bad_number_in_one_parameter(run: Run, value: float) -> None:
    """Only that parameter is named; clipping turns the others into zeros or NaN, and nothing is consumed."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(6):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            loss = scaler.scale(loss_of(model))
            handle = None
            if step % 2:
                handle = model[3].weight.register_hook(lambda g: g.index_fill(1, torch.tensor([2]), value))
            loss.backward()
            if handle is not None:
                handle.remove()
            scaler.unscale_(optimizer)
            run.before()
            clip = Clip(1.0, clip_grad_norm_(model.parameters(), 1.0))
            if step % 2:
                run.skipped("optimizer", clip, loss_scale=scale)
            else:
                run.after("optimizer", clip, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_zeroed_between_a_skipped_step_and_the_update(run: Run) -> None:
    """The gradients are gone when the scaler is updated: the record is of what was there at the step."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(6):
            scale = scaler.get_scale()
            scaler.scale(overflow(loss_of(model), step % 3 == 1)).backward()
            run.before(scale=scale)
            if step % 3 == 1:
                run.skipped(loss_scale=scale)
            else:
                run.after(scale=scale, loss_scale=scale)
            scaler.step(optimizer)
            optimizer.zero_grad()
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_the_last_step_is_skipped_and_never_updated(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(6):
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), step == 5)).backward()
            run.before(scale=SCALE)
            if step == 5:
                run.skipped(loss_scale=SCALE)
                scaler.step(optimizer)
                break
            run.after(scale=SCALE, loss_scale=SCALE)
            scaler.step(optimizer)
            scaler.update()


@conformance
def test_unscaled_and_then_not_stepped_by_the_user(run: Run) -> None:
    """A loop that looks at the norm and passes over a bad batch itself: there was no step, and no record."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        passes = 0
        for batch in range(9):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            passes += 1
            scaler.unscale_(optimizer)
            run.before()
            if batch % 3 != 1:
                run.after(passes=passes, loss_scale=SCALE)
                scaler.step(optimizer)
                passes = 0
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_starts_far_too_high_and_finds_its_factor(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-40)
    with run.track(optimizer, model):
        for _ in range(7):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            run.before(scale=scale)
            if all(bool(p.grad.isfinite().all()) for p in model.parameters()):  # type: ignore[union-attr]
                run.after(scale=scale, loss_scale=scale)
            else:
                run.skipped(loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() < 2.0**100
    run.leave(scaler=scaler)


@conformance
def test_methods_bound_before_tracking(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    scale_of, unscale, take_step, update = scaler.scale, scaler.unscale_, scaler.step, scaler.update
    with run.track(optimizer, model):
        for step in range(6):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            scale_of(overflow(loss_of(model), step % 3 == 1)).backward()
            unscale(optimizer)
            run.before()
            clip = Clip(1.0, clip_grad_norm_(model.parameters(), 1.0))
            if step % 3 == 1:
                run.skipped("optimizer", clip, loss_scale=scale)
            else:
                run.after("optimizer", clip, loss_scale=scale)
            take_step(optimizer)
            update()
    run.leave(scaler=scaler)


class OwnWayScaler(GradScaler):
    """Unscales in a way of its own, as sharded and pipelined trainers' scalers do, without asking torch's."""

    def _unscale_grads_(self, optimizer, inv_scale, found_inf, allow_fp16):  # type: ignore[no-untyped-def]
        found = torch.zeros_like(found_inf)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(inv_scale)
                    found += (~parameter.grad.isfinite()).any()
        return {found.device: found.clamp_max(1.0)}


@pytest.mark.parametrize("clipped", [False, True])
@conformance
def test_a_scaler_that_unscales_in_a_way_of_its_own(run: Run, clipped: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = OwnWayScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(6):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), step % 3 == 1)).backward()
            clips, left = [], scale
            if clipped:
                scaler.unscale_(optimizer)
                run.before()
                clips, left = [Clip(1.0, clip_grad_norm_(model.parameters(), 1.0))], 1.0
            else:
                run.before(scale=scale)
            if step % 3 == 1:
                run.skipped("optimizer", *clips, loss_scale=scale)
            else:
                run.after("optimizer", *clips, scale=left, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


class CountingScaler(GradScaler):
    """A user's own: overrides what torch calls itself."""

    def __init__(self) -> None:
        super().__init__("cpu", init_scale=SCALE)
        self.unscaled = 0

    def _unscale_grads_(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.unscaled += 1
        return super()._unscale_grads_(*args, **kwargs)

    def step(self, optimizer, *args, **kwargs):  # type: ignore[no-untyped-def]
        return super().step(optimizer, *args, **kwargs)


@conformance
def test_a_scaler_of_the_users_own(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = CountingScaler()
    with run.track(optimizer, model):
        for step in range(6):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), step % 3 == 1)).backward()
            run.before(scale=scale)
            if step % 3 == 1:
                run.skipped(loss_scale=scale)
            else:
                run.after(scale=scale, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_a_part_without_gradients_in_a_skipped_step(run: Run) -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(6):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), step % 3 == 2)).backward()
            run.before(scale=scale)
            if step % 3 == 2:
                run.skipped(loss_scale=scale)
            else:
                run.after(scale=scale, loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
    run.leave(scaler=scaler)


@conformance
def test_a_parameter_that_comes_before_a_step_that_is_left_out(run: Run) -> None:
    """Nothing has met it yet: no pass, no clip call, no step."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with run.track(optimizer, model):
        for step in range(4):
            scale = scaler.get_scale()
            optimizer.zero_grad()
            scaler.scale(overflow(loss_of(model), step == 2)).backward()
            scaler.unscale_(optimizer)
            run.before()
            if step == 2:
                model.register_parameter("late", torch.nn.Parameter(torch.ones(3)))
                optimizer.add_param_group({"params": [model.late]})
                run.skipped("optimizer", loss_scale=scale)
            else:
                run.after("optimizer", loss_scale=scale)
            scaler.step(optimizer)
            scaler.update()
