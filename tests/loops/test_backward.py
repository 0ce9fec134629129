"""Gradients that come about in other ways than one plain backward."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


def smooth() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def clip_and_step(
    run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, passes: int = 1, limit: float = 0.5
) -> None:
    run.before()
    norm = clip_grad_norm_(model.parameters(), limit)
    run.after("optimizer", Clip(limit, norm), passes=passes)
    optimizer.step()


@pytest.mark.parametrize("reentrant", [False, True])
@conformance
def test_recomputed_activations(run: Run, reentrant: bool) -> None:
    """Re-entrant checkpoints run a backward inside the backward; it is one pass of the user's."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            x = torch.randn(6, 4, requires_grad=True)
            hidden: Any = checkpoint(model[:2], x, use_reentrant=reentrant)
            hidden = checkpoint(model[2:4], hidden, use_reentrant=reentrant)
            model[4](hidden).square().mean().mul(10).backward()
            clip_and_step(run, model, optimizer)


@conformance
def test_everything_recomputed_by_own_code_of_the_user(run: Run) -> None:
    """The whole model under one re-entrant checkpoint, with own clipping: only the outer end is the end."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            x = torch.randn(6, 4, requires_grad=True)
            out: Any = checkpoint(model, x, use_reentrant=True)
            (out + model(x)).square().mean().backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


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


@conformance
def test_an_exception_in_the_backward(run: Run) -> None:
    """It leaves gradients in part; the loop zeroes and goes on."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def fail(_: Tensor) -> None:
        raise ZeroDivisionError

    with run.track(optimizer, model):
        for step in range(9):
            optimizer.zero_grad()
            if step % 3 == 1:
                hidden = model[:2](torch.randn(6, 4))
                hidden.register_hook(fail)
                with pytest.raises(ZeroDivisionError):
                    model[2:](hidden).square().mean().backward()
                optimizer.zero_grad()
            loss_of(model).backward()
            clip_and_step(run, model, optimizer, passes=1)


@conformance
def test_an_exception_in_the_backward_and_what_it_left_is_used(run: Run) -> None:
    """The head has its gradient of the failed pass and gets no other; the body's comes from the next pass."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def fail(_: Tensor) -> None:
        raise ZeroDivisionError

    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            hidden = model[:2](torch.randn(6, 4))
            hidden.register_hook(fail)
            with pytest.raises(ZeroDivisionError):
                model[2:](hidden).square().mean().backward()
            model[0](torch.randn(6, 4)).square().mean().backward()
            clip_and_step(run, model, optimizer)


class Doubled(torch.autograd.Function):
    """Runs a backward of its own inside its backward, on another part of the model."""

    part: nn.Module

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            Doubled.part(torch.ones(1, 8)).sum().backward()
        return gradient * 2


@conformance
def test_a_backward_inside_a_backward(run: Run) -> None:
    """The inner one ends first, and writes another part: one pass, as a re-entrant checkpoint's is."""
    model = smooth()
    Doubled.part = model[2]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            model[4](Doubled.apply(model[:2](torch.randn(6, 4)))).square().mean().backward()
            clip_and_step(run, model, optimizer)


@conformance
def test_the_loop_in_another_thread(run: Run) -> None:
    """Tracked here, trained there."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def train() -> None:
        torch.set_num_threads(1)
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            clip_and_step(run, model, optimizer)

    with run.track(optimizer, model):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()


@conformance
def test_backward_in_one_thread_and_step_in_another(run: Run) -> None:
    """As hogwild learners and parameter servers do it."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def in_thread(work: Any) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            in_thread(lambda: loss_of(model).backward())
            in_thread(lambda: clip_and_step(run, model, optimizer))


@conformance
def test_saved_tensors_on_another_shelf(run: Run) -> None:
    """Activations packed and unpacked by the user's hooks, as offloading does it."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    shelf: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> int:
        shelf[len(shelf)] = tensor.clone()
        return len(shelf) - 1

    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            with torch.autograd.graph.saved_tensors_hooks(pack, shelf.__getitem__):
                loss = loss_of(model)
            loss.backward()
            clip_and_step(run, model, optimizer)
            shelf.clear()


@conformance
def test_anomaly_detection(run: Run) -> None:
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
                loss_of(model).backward()
            clip_and_step(run, model, optimizer)


@conformance
def test_module_hooks_of_the_user(run: Run) -> None:
    """Forward and full backward hooks that scale what passes through."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model[2].register_full_backward_hook(lambda m, given, _: tuple(g * 0.5 for g in given))
    model[1].register_forward_hook(lambda m, _, out: out * 1.5)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            clip_and_step(run, model, optimizer)


@conformance
def test_truncated_backpropagation_through_time(run: Run) -> None:
    """A hidden state that is carried on and cut off, a pass for each piece, a step for each two."""
    cell, out = nn.GRUCell(3, 5), nn.Linear(5, 1)
    model = nn.ModuleDict({"cell": cell, "out": out})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        hidden = torch.zeros(2, 5)
        for _ in range(6):
            optimizer.zero_grad()
            for _ in range(2):
                hidden = hidden.detach()
                for _ in range(3):
                    hidden = cell(torch.randn(2, 3), hidden)
                (out(hidden) - 1).square().mean().mul(10).backward()
            clip_and_step(run, model, optimizer, passes=2)


@conformance
def test_an_evaluation_between_backward_and_step(run: Run) -> None:
    """With gradients switched off, in inference mode, and with a graph that nobody uses."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            model.eval()
            with torch.no_grad():
                loss_of(model)
            with torch.inference_mode():
                loss_of(model)
            loss_of(model)
            model.train()
            clip_and_step(run, model, optimizer)
