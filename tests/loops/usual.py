"""The usual step, for the loops that differ from others in something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of
from tests.loops.run import Clip, Run


def clip_and_step(
    run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, *names: str, limit: float = 0.5, passes: int = 1
) -> None:
    """The gradients are complete: clip by torch's function, and step; the truth for each of the names."""
    names = names or ("optimizer",)
    for name in names:
        run.before(name)
    norm = clip_grad_norm_(model.parameters(), limit)
    for name in names:
        run.after(name, Clip(limit, norm), passes=passes)
    optimizer.step()


def usual_step(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, *names: str) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    clip_and_step(run, model, optimizer, *names)


def halved_step(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Clipping by own code: nothing but the end of the backward can tell the norm before."""
    optimizer.zero_grad()
    loss_of(model).backward()
    run.before()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(0.5)
    run.after()
    optimizer.step()


def usual_steps(
    run: Run,
    model: nn.Module,
    optimizer: Any,
    loss: Callable[[], Tensor] | None = None,
    step: Callable[[], object] | None = None,
) -> None:
    """Six of them, with a loss or a step of the loop's own."""
    for _ in range(6):
        optimizer.zero_grad()
        (loss() if loss is not None else loss_of(model)).backward()
        run.before()
        norm = clip_grad_norm_(model.parameters(), 0.5)
        run.after("optimizer", Clip(0.5, norm))
        (step or optimizer.step)()
