"""Gradients that no backward wrote: computed apart and assigned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.loops.models import loss_of, mlp, smooth
from tests.loops.run import Run, conformance
from tests.loops.usual import clip_and_step, usual_step


@conformance
def test_gradients_computed_apart_and_assigned(run: Run) -> None:
    """``torch.autograd.grad`` writes no ``.grad``: no pass was seen, and the clip call is the first to show it."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            gradients = torch.autograd.grad(loss_of(model), list(model.parameters()))
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            clip_and_step(run, model, optimizer, passes=0)


@conformance
def test_gradients_computed_apart_and_assigned_without_clipping(run: Run) -> None:
    model = smooth()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            gradients = torch.autograd.grad(loss_of(model), list(model.parameters()))
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            run.after(passes=0)
            optimizer.step()


@conformance
def test_assigned_gradients_and_backward_in_turn(run: Run) -> None:
    """What a backward measured for one step says nothing of what is assigned for the next."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(8):
            optimizer.zero_grad()
            if step % 2:
                loss_of(model).backward()
            else:
                gradients = torch.autograd.grad(loss_of(model), list(model.parameters()))
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.grad = gradient * 3
            clip_and_step(run, model, optimizer, passes=step % 2)


@conformance
def test_functional_gradients(run: Run) -> None:
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(model, weights, (x,))
        return out.square().mean() * 10

    with run.track(optimizer, model):
        for _ in range(6):
            named = dict(model.named_parameters())
            detached = {name: p.detach() for name, p in named.items()}
            for name, gradient in torch.func.grad(loss)(detached, torch.randn(6, 4)).items():
                named[name].grad = gradient
            clip_and_step(run, model, optimizer, passes=0)


@conformance
def test_gradients_of_each_sample_clipped_and_noised(run: Run) -> None:
    """Differential privacy by vmap: the sum of clipped gradients is all that ``.grad`` ever holds."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(model, weights, (x[None],))
        return out.square().sum()

    with run.track(optimizer, model):
        for _ in range(6):
            named = dict(model.named_parameters())
            detached = {name: p.detach() for name, p in named.items()}
            each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(detached, torch.randn(6, 4))
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in each.values()]).norm(dim=0)
            factor = (1.0 / norms.clamp_min(1e-6)).clamp_max(1.0)
            for name, gradient in each.items():
                summed = torch.einsum("i,i...->...", factor, gradient)
                named[name].grad = summed + 0.1 * torch.randn_like(summed)
            run.after(passes=0)
            optimizer.step()


@conformance
def test_evolution_writes_its_own_gradients(run: Run) -> None:
    """No graph at all."""
    model = smooth()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model), torch.no_grad():
        for _ in range(6):
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            for _ in range(3):
                noise = [torch.randn_like(p) for p in model.parameters()]
                for sign in (1.0, -1.0):
                    for parameter, change in zip(model.parameters(), noise, strict=True):
                        parameter.add_(change, alpha=0.1 * sign)
                    loss = loss_of(model)
                    for parameter, change in zip(model.parameters(), noise, strict=True):
                        parameter.sub_(change, alpha=0.1 * sign)
                        parameter.grad.add_(change * loss, alpha=sign)  # type: ignore[union-attr]
            clip_and_step(run, model, optimizer, passes=0)


@pytest.mark.parametrize("whole_step", [False, True])
@conformance
def test_gradients_made_in_inference_mode(run: Run, whole_step: bool) -> None:
    """Torch counts no versions there, and what is made there cannot be changed outside."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(3):
            optimizer.zero_grad()
            with torch.inference_mode():
                for parameter in model.parameters():
                    parameter.grad = torch.randn_like(parameter)
            run.before()
            run.after(passes=0)
            with torch.inference_mode(whole_step):
                optimizer.step()
        usual_step(run, model, optimizer)
