"""Learning rate schedulers, which wrap ``optimizer.step`` themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer, lr_scheduler, swa_utils

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

# Torch 2.6 calls itself in a way that it warns of.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=10),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1.0 / (1 + step)),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[3]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "swa": lambda o: swa_utils.SWALR(o, swa_lr=0.05, anneal_epochs=3),
}


# torch 2.6 itself passes an epoch on in SequentialLR, and warns of it.
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("built", ["before tracking", "while tracking"])
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@conformance
def test_a_scheduler(run: Run, make: Callable[[Optimizer], Any], built: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = make(optimizer) if built == "before tracking" else None
    with run.track(optimizer, model):
        scheduler = scheduler or make(optimizer)
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()
            scheduler.step()
    run.leave(learning_rate=scheduler.get_last_lr())


@conformance
def test_reduce_on_plateau(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        for _ in range(6):
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            run.after()
            optimizer.step()
            scheduler.step(loss.item())
    run.leave(scheduler=scheduler)


@conformance
def test_built_while_tracking_and_used_after_it(run: Run) -> None:
    """The scheduler goes on when the tracker is gone."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        scheduler = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.after()
            optimizer.step()
            scheduler.step()
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05 / 2**8
    run.leave(scheduler=scheduler.state_dict())


@conformance
def test_built_anew_for_each_epoch(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(3):
            scheduler = lr_scheduler.LinearLR(optimizer, total_iters=2)
            for _ in range(2):
                optimizer.zero_grad()
                loss_of(model).backward()
                run.after()
                optimizer.step()
                scheduler.step()
