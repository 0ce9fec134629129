"""Several backward passes for one step, and every way to begin anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

Zero = Callable[[nn.Module, torch.optim.Optimizer], object]


def by_hand(model: nn.Module, _: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()


def to_none_by_hand(model: nn.Module, _: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def detached_and_zeroed(model: nn.Module, _: torch.optim.Optimizer) -> None:
    """As torch did it once."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.detach_()
            parameter.grad.zero_()


ZEROINGS: dict[str, Zero] = {
    "optimizer": lambda _, optimizer: optimizer.zero_grad(),
    "optimizer to zero": lambda _, optimizer: optimizer.zero_grad(set_to_none=False),
    "model": lambda model, _: model.zero_grad(),
    "model to zero": lambda model, _: model.zero_grad(set_to_none=False),
    "by hand": by_hand,
    "to none by hand": to_none_by_hand,
    "detached and zeroed": detached_and_zeroed,
}


@pytest.mark.parametrize("zero", ZEROINGS.values(), ids=ZEROINGS)
@conformance
def test_accumulation_over_three_batches(run: Run, zero: Zero) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with run.track(optimizer, model):
        for batch in range(18):
            (loss_of(model) / 3).backward()
            if batch % 3 == 2:
                run.before()
                norm = clip_grad_norm_(model.parameters(), 1.0)
                run.after("optimizer", Clip(1.0, norm), passes=3)
                optimizer.step()
                zero(model, optimizer)


@conformance
def test_accumulation_of_changing_length_with_a_rest(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for batches in (1, 4, 2, 3, 1, 2):
            optimizer.zero_grad()
            for _ in range(batches):
                (loss_of(model) / batches).backward()
            run.before()
            clip_grad_value_(model.parameters(), 0.1)
            run.after("optimizer", Clip(0.1, None, None, "clip_grad_value_"), passes=batches)
            optimizer.step()


@conformance
def test_never_zeroed(run: Run) -> None:
    """A fault that people make: each step consumes the sum of all gradients so far."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            loss_of(model).backward()
            run.after()
            optimizer.step()


@conformance
def test_a_step_without_a_backward_consumes_the_old_gradients(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for step in range(8):
            if step % 2 == 0:
                optimizer.zero_grad()
                loss_of(model).backward()
            run.after(passes=1 - step % 2)
            optimizer.step()


@conformance
def test_a_step_before_any_backward(run: Run) -> None:
    """All gradients are missing: there is no norm, and it is not 0."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for step in range(6):
            if step >= 3:
                loss_of(model).backward()
            run.after(passes=int(step >= 3))
            optimizer.step()
            optimizer.zero_grad()


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 8)
        self.heads = nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 2)])

    def loss(self, head: int) -> torch.Tensor:
        loss: torch.Tensor = self.heads[head](self.trunk(torch.randn(6, 4)).tanh()).square().sum()
        return loss


@pytest.mark.parametrize("to_none", [True, False])
@conformance
def test_zeroed_between_two_backward_passes_of_which_the_second_writes_a_part(run: Run, to_none: bool) -> None:
    """What the first pass left in the other head is gone: it is no part of the norm before."""
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, {"trunk": model.trunk, "first": model.heads[0], "second": model.heads[1]}):
        for step in range(6):
            model.loss(1 - step % 2).backward()
            optimizer.zero_grad(set_to_none=to_none)
            model.loss(step % 2).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=2)
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)


@pytest.mark.parametrize("to_none", [True, False])
@conformance
def test_the_second_pass_adds_to_a_part(run: Run, to_none: bool) -> None:
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad(set_to_none=to_none)
            model.loss(0).backward()
            model.loss(1).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=2)
            optimizer.step()


@conformance
def test_a_part_zeroed_between_two_passes_and_clipped_by_own_code(run: Run) -> None:
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            model.loss(0).backward()
            model.heads[0].weight.grad.zero_()
            model.heads[0].bias.grad = None
            model.loss(1).backward()
            run.before()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(0.25)
            run.after(passes=2)
            optimizer.step()


@pytest.mark.parametrize("first", ["clipped", "zeroed"])
@conformance
def test_clipped_for_a_step_that_is_left_out_and_zeroed_in_place(run: Run, first: str) -> None:
    """What the next pass does not write is 0 before that step, and not what it was before it was clipped."""
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, {"trunk": model.trunk, "first": model.heads[0], "second": model.heads[1]}):
        for step in range(6):
            (model.loss(0) + model.loss(1)).backward()
            if first == "zeroed":
                optimizer.zero_grad(set_to_none=False)
            left_out = Clip(0.5, clip_grad_norm_(model.parameters(), 0.5))
            if first == "clipped":
                optimizer.zero_grad(set_to_none=False)
            model.loss(step % 2).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", left_out, Clip(0.5, norm), passes=2)
            optimizer.step()
            optimizer.zero_grad()


@conformance
def test_averaged_by_own_code_before_each_clip_call(run: Run) -> None:
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            clips = []
            for _ in range(3):
                (model.loss(0) + model.loss(1)).backward()
                run.before()
                for parameter in model.parameters():
                    parameter.grad /= 3
                clips.append(Clip(0.5, clip_grad_norm_(model.parameters(), 0.5)))
            run.after("optimizer", *clips, passes=3)
            optimizer.step()
            optimizer.zero_grad()


@conformance
def test_gradients_decayed_between_two_passes(run: Run) -> None:
    """An average over passes: what the last one does not write was halved after it had been measured."""
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            model.loss(0).backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(0.5)
            model.loss(1).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=2)
            optimizer.step()


@conformance
def test_retained_graph_and_two_losses(run: Run) -> None:
    model = TwoHeads()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            features = model.trunk(torch.randn(6, 4)).tanh()
            model.heads[0](features).square().sum().backward(retain_graph=True)
            model.heads[1](features).square().sum().backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=2)
            optimizer.step()


@conformance
def test_the_same_graph_twice(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward(retain_graph=True)
            loss.backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=2)
            optimizer.step()


@conformance
def test_many_losses_in_one_backward(run: Run) -> None:
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            torch.autograd.backward([model.loss(0), model.loss(1), model.loss(0)])
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()


@conformance
def test_a_backward_for_some_inputs_only(run: Run) -> None:
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            model.loss(0).backward(inputs=list(model.heads.parameters()))
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.1)
            run.after("optimizer", Clip(0.1, norm))
            optimizer.step()
