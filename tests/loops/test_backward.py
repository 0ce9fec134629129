"""Backward passes of every kind: recomputed, nested, failed, in other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import backward as bound_early
from torch.utils.checkpoint import checkpoint

from tests.loops.models import loss_of, mlp, smooth
from tests.loops.run import Run, conformance
from tests.loops.usual import clip_and_step


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


WAYS_TO_RUN: dict[str, Callable[[Tensor], None]] = {
    "torch.autograd.backward": lambda loss: torch.autograd.backward(loss),
    "bound early": lambda loss: bound_early(loss),
    "through the class": lambda loss: Tensor.backward(loss),
    "with a gradient": lambda loss: loss.expand(2).backward(torch.tensor([0.25, 0.5])),
    "many outputs": lambda loss: torch.autograd.backward([loss, loss * 2], [None, torch.tensor(0.5)]),
    "the engine itself": lambda loss: torch.autograd.Variable._execution_engine.run_backward(  # type: ignore[attr-defined]
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    ),
}


@pytest.mark.parametrize("run_backward", WAYS_TO_RUN.values(), ids=WAYS_TO_RUN)
@conformance
def test_every_way_to_run_a_backward(run: Run, run_backward: Callable[[Tensor], None]) -> None:
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            run_backward(loss_of(model))
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@conformance
def test_gradients_taken_apart_between_backward_and_step(run: Run) -> None:
    """As for saliency maps: ``torch.autograd.grad`` runs the engine and writes no ``.grad``."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            torch.autograd.grad(loss_of(model), list(model.parameters()))
            x = torch.randn(2, 4, requires_grad=True)
            torch.autograd.grad(model(x).sum(), x)
            run.after()
            optimizer.step()


@conformance
def test_a_backward_of_something_else_between_backward_and_step(run: Run) -> None:
    """It writes gradients of a model that nobody tracks."""
    model, other = smooth(), smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            loss_of(other).backward()
            run.after()
            optimizer.step()
    run.leave(other=other)


@conformance
def test_an_exception_in_a_recomputed_part(run: Run) -> None:
    """The inner pass of a re-entrant checkpoint fails, and the outer one with it; the next one is whole."""
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def fail(_: Tensor) -> None:
        raise ZeroDivisionError

    def failing(x: Tensor) -> Tensor:
        hidden: Tensor = model[:4](x)
        if hidden.requires_grad:
            hidden.register_hook(fail)
        return hidden

    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            x = torch.randn(6, 4, requires_grad=True)
            out: Any = checkpoint(failing, x, use_reentrant=True)
            with pytest.raises(ZeroDivisionError):
                model[4](out).square().mean().backward()
            optimizer.zero_grad()
            loss_of(model).backward()
            clip_and_step(run, model, optimizer)


@conformance
def test_backward_passes_in_four_threads_at_once(run: Run) -> None:
    """Each writes its own part of one model; the step comes when all are done."""
    parts = [smooth() for _ in range(4)]
    model = nn.ModuleList(parts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, {f"part {i}": part for i, part in enumerate(parts)}):
        for _ in range(6):
            optimizer.zero_grad()
            losses = [loss_of(part) for part in parts]
            threads = [threading.Thread(target=loss.backward) for loss in losses]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            clip_and_step(run, model, optimizer, passes=4)
