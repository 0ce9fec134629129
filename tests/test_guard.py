"""A guard keeps a bad update from being applied: parameters, optimizer state and gradients stay as they were."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.errors import ArgumentError, NonFiniteGradientError

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "not foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, weight_decay=0.1),
}


def backward(model: nn.Module, factor: float = 1.0) -> None:
    model.zero_grad()
    (model(torch.ones(4, 3)).square().mean() * factor).backward()


def left(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    state = [value for per in optimizer.state.values() for value in per.values() if isinstance(value, Tensor)]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return copy.deepcopy([*(p.detach() for p in model.parameters()), *state, *gradients])


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_skip_leaves_everything_as_it_was_and_records_it(kind: str, factor: float) -> None:
    model = nn.Linear(3, 2)
    optimizer = OPTIMIZERS[kind](model.parameters())
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        for _ in range(2):
            backward(model)
            optimizer.step()
        backward(model, factor)
        before = left(model, optimizer)
        optimizer.step()
        assert same(left(model, optimizer), before)
        backward(model)
        optimizer.step()
        assert not same(left(model, optimizer), before)
    assert [record.skipped for record in watch.history] == [False, False, True, False]
    assert math.isnan(watch.history[2].norm_after)
    assert watch.history[2].nonfinite == ("weight", "bias")
    assert [(a.rule, a.severity) for a in watch.alerts if a.state == "firing"] == [("nonfinite", "warning")]


def test_raise_stops_before_the_update() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    watch = gradwatch.track(optimizer, model, guard="raise")
    with watch:
        backward(model)
        optimizer.step()
        backward(model, math.nan)
        before = left(model, optimizer)
        with pytest.raises(NonFiniteGradientError, match=r"Step 2 of 'optimizer' .* weight and of 1 more"):
            optimizer.step()
        assert same(left(model, optimizer), before)
        backward(model)
        optimizer.step()
    assert [(r.step, r.skipped) for r in watch.history] == [(1, False), (2, True), (3, False)]
    assert [a.rule for a in watch.alerts if a.state == "firing"] == ["nonfinite"]


@pytest.mark.parametrize("guard", ["raise", "skip"])
def test_a_healthy_run_is_equal_bit_for_bit(guard: Any) -> None:
    runs = []
    for tracked in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        if tracked:
            with gradwatch.track(optimizer, model, guard=guard):
                for _ in range(5):
                    backward(model)
                    optimizer.step()
        else:
            for _ in range(5):
                backward(model)
                optimizer.step()
        runs.append(left(model, optimizer))
    assert same(*runs)


def test_a_closure_is_guarded_too() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]

    def closure() -> float:
        backward(model, math.nan)
        return 0.0

    with gradwatch.track(optimizer, model, guard="skip") as watch:
        optimizer.step(closure)
    assert watch["optimizer"].skipped
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("arguments", [{"guard": "stop"}, {"guard": "skip", "every": 2}])
def test_what_cannot_be_meant_is_refused(arguments: Any) -> None:
    with pytest.raises(ArgumentError, match="guard is"):
        gradwatch.track(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), **arguments)
