"""The user's own step hooks. What the optimizer consumes is what they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

Hook = Callable[..., None]


def halves(run: Run, model: nn.Module, last: bool = True) -> Hook:
    """A hook that halves the gradients; after the last one the truth is taken."""

    def hook(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)
        if last:
            run.after()

    return hook


@conformance
def test_a_pre_hook_registered_before_tracking(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer.register_step_pre_hook(halves(run, model))
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            optimizer.step()


@conformance
def test_a_pre_hook_registered_while_tracking(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        optimizer.register_step_pre_hook(halves(run, model))
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            optimizer.step()


@conformance
def test_a_pre_hook_registered_between_backward_and_step(run: Run) -> None:
    """And removed after it, at every step: nothing of gradwatch runs between its registration and its call."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            handle = optimizer.register_step_pre_hook(halves(run, model))
            optimizer.step()
            handle.remove()


@conformance
def test_a_pre_hook_registered_by_a_pre_hook(run: Run) -> None:
    """The new one runs from the next step on, after the old one."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    handles: list[Any] = []

    def first(*_: object) -> None:
        if not handles:
            handles.append(optimizer.register_step_post_hook(second))
        else:
            halves(run, model, last=False)(*_)

    def second(*_: object) -> None:
        if len(handles) == 1:
            handles.append(optimizer.register_step_pre_hook(halves(run, model)))

    optimizer.register_step_pre_hook(first)
    with run.track(optimizer, model):
        for step in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            if step == 0:
                run.after()
            optimizer.step()


@conformance
def test_hooks_before_and_while_tracking_and_torchs_clipping(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    clips: list[Clip] = []

    def taken(*_: object) -> None:
        run.after("optimizer", *clips)

    optimizer.register_step_pre_hook(halves(run, model, last=False))
    with run.track(optimizer, model):
        optimizer.register_step_pre_hook(halves(run, model, last=False))
        optimizer.register_step_pre_hook(taken)
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            clips[:] = [Clip(1.0, clip_grad_norm_(model.parameters(), 1.0))]
            optimizer.step()


@conformance
def test_torchs_clipping_inside_a_pre_hook(run: Run) -> None:
    """As trainers do it that hide the loop: one hook on the optimizer clips for everybody."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def clip(*_: object) -> None:
        norm = clip_grad_norm_(model.parameters(), 1.0)
        run.after("optimizer", Clip(1.0, norm))

    with run.track(optimizer, model):
        optimizer.register_step_pre_hook(clip)
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            optimizer.step()


@pytest.mark.parametrize("when", ["before tracking", "while tracking"])
@conformance
def test_a_hook_on_all_optimizers(run: Run, when: str) -> None:
    """Torch runs the process-wide hooks before those of the instance."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    handles = []
    try:
        if when == "before tracking":
            handles.append(register_optimizer_step_pre_hook(halves(run, model)))
        with run.track(optimizer, model):
            if when == "while tracking":
                handles.append(register_optimizer_step_pre_hook(halves(run, model)))
                handles.append(register_optimizer_step_post_hook(lambda *_: None))
            for _ in range(6):
                optimizer.zero_grad()
                loss_of(model).backward()
                run.before()
                optimizer.step()
    finally:
        for handle in handles:
            handle.remove()


@conformance
def test_post_hooks_that_zero_and_that_change_weights(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def decay(*_: object) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.99)

    optimizer.register_step_post_hook(lambda o, *_: o.zero_grad())
    with run.track(optimizer, model):
        optimizer.register_step_post_hook(decay)
        for _ in range(6):
            loss_of(model).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@conformance
def test_a_post_hook_with_a_backward_of_its_own(run: Run) -> None:
    """What it writes is the next step's: the pass came after the step that it belongs to."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def prepare(*_: object) -> None:
        optimizer.zero_grad()
        loss_of(model).backward()

    optimizer.register_step_post_hook(prepare)
    with run.track(optimizer, model):
        loss_of(model).backward()
        for _ in range(6):
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@conformance
def test_a_pre_hook_that_changes_the_arguments(run: Run) -> None:
    """It hands the step a closure of its own."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        run.after()
        return loss

    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, closure), {}))
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.step()
