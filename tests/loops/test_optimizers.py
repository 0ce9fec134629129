"""Plain loops with each of torch's optimizers, in its variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import optim
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "sgd momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "sgd nesterov foreach": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": lambda p: optim.SGD(p, lr=0.05, fused=True),
    "sgd maximize weight decay": lambda p: optim.SGD(p, lr=0.01, maximize=True, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adam amsgrad foreach": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, foreach=True),
    "adam fused": lambda p: optim.Adam(p, lr=0.01, fused=True),
    "adam one by one": lambda p: optim.Adam(p, lr=0.01, foreach=False),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "adamw fused": lambda p: optim.AdamW(p, lr=0.01, fused=True),
    "adam, lr a tensor": lambda p: optim.Adam(p, lr=torch.tensor(0.01)),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05),
    "adagrad fused": lambda p: optim.Adagrad(p, lr=0.05, fused=True),
    "adadelta": lambda p: optim.Adadelta(p),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "rprop": lambda p: optim.Rprop(p, lr=0.01),
    "asgd": lambda p: optim.ASGD(p, lr=0.01),
    "adafactor": lambda p: optim.Adafactor(p, lr=0.01),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@conformance
def test_optimizer(run: Run, make: Callable[[Any], Optimizer]) -> None:
    model = mlp()
    optimizer = make(model.parameters())
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 2.0)
            run.after("optimizer", Clip(2.0, norm))
            optimizer.step()


@conformance
def test_no_clipping_and_no_modules(run: Run) -> None:
    model = mlp()
    optimizer = optim.Adam([{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 0.1}])
    with run.track(optimizer):
        for _ in range(6):
            loss_of(model).backward()
            run.after()
            optimizer.step()
            optimizer.zero_grad()
