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


class Twice(torch.optim.SGD):
    """Evaluates its closure twice, and steps along the second gradient, as sharpness-aware minimisation does."""

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            closure()
            loss = closure()
        super().step()
        return loss


def test_skip_leaves_out_what_a_second_evaluation_of_the_closure_makes() -> None:
    model = nn.Linear(3, 2)
    optimizer = Twice(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        optimizer.step(lambda: backward(model, math.nan))
    assert same([p.detach() for p in model.parameters()], before)
    assert [record.skipped for record in watch.history] == [True]


class Strict(torch.optim.SGD):
    """Refuses to step without gradients."""

    def step(self, closure: Any = None) -> Any:
        if all(p.grad is None for group in self.param_groups for p in group["params"]):
            raise RuntimeError("no gradients")
        return super().step(closure)


def test_gradients_of_a_step_that_failed_are_not_put_over_newer_ones() -> None:
    model = nn.Linear(3, 2)
    optimizer = Strict(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        backward(model, math.nan)
        with pytest.raises(RuntimeError, match="no gradients"):
            optimizer.step()
        backward(model)
        newer = [p.grad for p in model.parameters()]
        optimizer.step()
        assert all(p.grad is grad for p, grad in zip(model.parameters(), newer, strict=True))
    assert [record.skipped for record in watch.history] == [False]


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


def exploding(
    guard: gradwatch.Guard, wild: set[int], steps: int = 30, **others: Any
) -> tuple[gradwatch.Watch, list[bool]]:
    """Steps of a steady gradient, and of one a thousand times as large; whether each has moved the weight."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    moved = []
    with gradwatch.track(optimizer, guard=guard, **others) as watch:
        for number in range(1, steps + 1):
            optimizer.zero_grad()
            (weight.sum() * (1000.0 if number in wild else 1.0 + 0.01 * (number % 3))).backward()
            before = weight.detach().clone()
            optimizer.step()
            moved.append(not torch.equal(before, weight.detach()))
    return watch, moved


def test_a_step_far_above_the_usual_is_left_out() -> None:
    watch, moved = exploding(gradwatch.Guard("raise", explosion="skip"), wild={25, 26})
    assert [number for number, has in enumerate(moved, 1) if not has] == [25, 26]
    assert [record.step for record in watch.history if record.skipped] == [25, 26]
    (alert,) = watch.alerts
    assert alert.severity == "warning"
    assert alert.message.endswith("; the step was skipped and changed nothing")


def test_only_after_so_many_in_a_row() -> None:
    _, moved = exploding(gradwatch.Guard("raise", explosion="skip", after=2), wild={24, 26, 27})
    assert [number for number, has in enumerate(moved, 1) if not has] == [27]


def test_what_is_not_finite_is_never_let_by() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model, guard=gradwatch.Guard("skip", explosion="skip", after=3)) as watch:
        for step in range(3):
            optimizer.zero_grad()
            (model(torch.ones(1, 3)).sum() * (math.nan if step == 1 else 1.0)).backward()
            optimizer.step()
    assert [record.skipped for record in watch.history] == [False, True, False]
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_step_far_above_the_usual_is_stopped() -> None:
    told: list[gradwatch.Alert] = []
    with pytest.raises(gradwatch.errors.ExplodingGradientError, match="nothing was changed") as raised:
        exploding(gradwatch.Guard("skip", explosion="raise"), wild={25}, on_alert=told.append)
    (alert,) = told
    assert alert.severity == "critical"
    assert alert.message.endswith("; the step was refused and changed nothing")
    assert f"above {alert.threshold:.3g}:" in str(raised.value)


@pytest.mark.parametrize(("steps", "words"), [(9, 0), (25, 1)])
def test_it_says_once_that_training_stands_still(steps: int, words: int, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model, guard="skip"):
        for step in range(steps + 4):
            backward(model, math.nan if 2 <= step < steps + 2 else 1.0)
            optimizer.step()
    said = [r.getMessage() for r in caplog.records if "training stands still, and what is" in r.getMessage()]
    assert len(said) == words
    assert all("has left out 10 steps of optimizer in a row, up to step 12:" in text for text in said)
