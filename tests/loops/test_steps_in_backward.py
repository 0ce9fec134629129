"""Optimizers stepped from inside the backward, one for each parameter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of
from tests.loops.run import Clip, Run, conformance


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("when", ["before tracking", "while tracking"])
@conformance
def test_optimizers_stepped_in_the_backward(run: Run, when: str, set_to_none: bool) -> None:
    """One optimizer a parameter, stepped and zeroed as soon as its gradient is there."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizers = {
        name: torch.optim.SGD([parameter], lr=0.05, momentum=0.9) for name, parameter in model.named_parameters()
    }

    def register() -> None:
        for name, parameter in model.named_parameters():

            def consume(_: Tensor, name: str = name) -> None:
                run.after(name)
                optimizers[name].step()
                optimizers[name].zero_grad(set_to_none=set_to_none)

            parameter.register_post_accumulate_grad_hook(consume)

    if when == "before tracking":
        register()
    with run.track(optimizers, model):
        if when == "while tracking":
            register()
        for _ in range(6):
            loss_of(model).backward()


@conformance
def test_optimizers_stepped_in_the_backward_with_clipping_of_each(run: Run) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizers = {name: torch.optim.Adam([parameter], lr=0.01) for name, parameter in model.named_parameters()}

    for name, parameter in model.named_parameters():

        def consume(parameter: Tensor, name: str = name) -> None:
            run.before(name)
            norm = clip_grad_norm_(parameter, 0.5)
            run.after(name, Clip(0.5, norm))
            optimizers[name].step()
            optimizers[name].zero_grad()

        parameter.register_post_accumulate_grad_hook(consume)

    with run.track(optimizers, model):
        for _ in range(6):
            loss_of(model).backward()


@conformance
def test_accumulated_over_passes_and_stepped_in_the_last_with_clipping(run: Run) -> None:
    """What is before clipping is the sum, also the part that the pass has written in which it is clipped."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizers = {name: torch.optim.Adam([parameter], lr=0.01) for name, parameter in model.named_parameters()}
    passes = 0

    for name, parameter in model.named_parameters():

        def consume(parameter: Tensor, name: str = name) -> None:
            if passes % 3:
                return
            run.before(name)
            norm = clip_grad_norm_(parameter, 0.5)
            run.after(name, Clip(0.5, norm), passes=3)
            optimizers[name].step()
            optimizers[name].zero_grad()

        parameter.register_post_accumulate_grad_hook(consume)

    with run.track(optimizers, model):
        for _ in range(18):
            passes += 1
            loss_of(model).backward()


@conformance
def test_stepped_within_a_pass_of_another_loss(run: Run) -> None:
    """Measured and clipped before that pass, which writes nothing of it."""
    first, second = (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)) for _ in range(2))
    optimizers = {"first": torch.optim.Adam(first.parameters()), "second": torch.optim.Adam(second.parameters())}
    clips: list[Clip] = []

    def step_the_first(_: Tensor) -> None:
        run.after("first", *clips)
        optimizers["first"].step()

    second[0].weight.register_post_accumulate_grad_hook(step_the_first)
    with run.track(optimizers, {"first": first, "second": second}):
        for _ in range(6):
            first.zero_grad()
            second.zero_grad()
            loss_of(first).backward()
            run.before("first")
            clips[:] = [Clip(0.1, clip_grad_norm_(first.parameters(), 0.1))]
            loss_of(second).backward()
            run.after("second")
            optimizers["second"].step()


@pytest.mark.filterwarnings(r"ignore:.torch\.jit\.\w+. is deprecated:DeprecationWarning")
@conformance
def test_torchs_own_way_to_step_in_the_backward(run: Run) -> None:
    """A hook on the node that accumulates, which also sets the gradient to None."""
    from torch.distributed.optim import _apply_optimizer_in_backward  # torch warns of itself when it is loaded

    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.05})
    optimizers = {name: p._in_backward_optimizers[0] for name, p in model.named_parameters()}  # type: ignore[attr-defined]
    for name, optimizer in optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: run.after(name))
    with run.track(optimizers, model):
        for _ in range(6):
            loss_of(model).backward()
