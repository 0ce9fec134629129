"""Mixed precision: a GradScaler around the loss and the step. Norms are of the unscaled gradients, always."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

SCALE = 2.0**10


def overflow(loss: Tensor, there: bool) -> Tensor:
    """The loss, so large where asked for that its scaled gradients are Inf."""
    return loss * 1e37 if there else loss


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
