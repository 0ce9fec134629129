"""The loop that most recipes share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from tests.healthy.run import Run

__all__ = ["fitted", "mlp", "warmed"]


def fitted(
    run: Run,
    model: nn.Module,
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    schedule: LRScheduler | None = None,
    limit: float | None = None,
    after: Callable[[], object] = lambda: None,
    reached: Sequence[float] = (),
) -> None:
    """``zero_grad``, ``backward``, a clip where there is a limit, ``step``, and the schedule; as often as the run asks.

    Args:
        run: the run.
        model: what is tracked.
        loss: of one step.
        optimizer: of what is trained.
        schedule: of its rate.
        limit: of the norm.
        after: called after each step, for averages and targets.
        reached: what the loss itself notes down, where that tells more of learning than its value.
    """
    with run.track(optimizer, model):
        for _ in range(run.steps):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            if limit is not None:
                nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            after()
            run.reached.append(reached[-1] if reached else value.item())


def warmed(optimizer: torch.optim.Optimizer, warm_up: int, then: Callable[[int], float]) -> LambdaLR:
    """A linear warm-up of so many steps, times what comes then (of the step)."""
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm_up) * then(step))


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Layers of these sizes with an activation between them."""
    layers: list[nn.Module] = []
    for one, other in itertools.pairwise(sizes):
        layers += [nn.Linear(one, other), act()]
    return nn.Sequential(*layers[:-1])
