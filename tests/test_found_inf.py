"""A guard that skips steps of a fused optimizer: the device decides, and the host waits for nothing.

The memory of the CPU stands for a device whose numbers are on their way for as long as the loop goes on.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.measure.pending import PendingStep
from tests.measure.elsewhere import treat_as_elsewhere
from tests.test_guard import backward, left, same

FUSED: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    treat_as_elsewhere(monkeypatch)


class Waits:
    """How often the host has waited for a step."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        wait = PendingStep.wait

        def waiting(step: PendingStep) -> None:
            self.count += 1
            wait(step)

        patch.setattr(PendingStep, "wait", waiting)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, factor: float = 1.0) -> bool:
    """One step; whether it has changed anything."""
    backward(model, factor)
    before = left(model, optimizer)
    optimizer.step()
    return not same(left(model, optimizer), before)


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_harmful_step_changes_nothing_and_is_recorded(
    kind: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(3, 2)
    optimizer = FUSED[kind](model.parameters())
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        stepped(model, optimizer)
        waits = Waits(monkeypatch)
        changed = [stepped(model, optimizer, f) for f in (1.0, factor, factor, 1.0)]
        # Adagrad's fused step fails on found_inf in torch 2.6, and does not offer it: there the host waits.
        asked = 0 if hasattr(optimizer, "_step_supports_amp_scaling") or kind != "adagrad" else 4
        assert (waits.count, watch.health().internal_errors) == (asked, 0)
    assert changed == [True, False, False, True]
    assert [record.skipped for record in watch.history] == [False, False, True, True, False]
    assert watch.history[2].nonfinite == ("weight", "bias")
    assert math.isnan(watch.history[2].norm_after)
    assert [(a.rule, a.severity) for a in watch.alerts if a.state == "firing"] == [("nonfinite", "warning")]
    assert not hasattr(optimizer, "found_inf")


@pytest.mark.parametrize("kind", FUSED)
def test_a_first_step_that_is_left_out_leaves_no_trace(kind: str) -> None:
    """Fused SGD keeps whatever was in memory as its momentum where the device leaves out its first step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    optimizer, alone = FUSED[kind](model.parameters()), FUSED[kind](twin.parameters())
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        for factor in (math.nan, 1.0, 1.0):
            stepped(model, optimizer, factor)
    for _ in range(2):
        stepped(twin, alone)
    assert same(left(model, optimizer), left(twin, alone))
    assert [record.skipped for record in watch.history] == [True, False, False]


def test_a_healthy_run_is_equal_bit_for_bit() -> None:
    runs = []
    for guard in ("skip", None):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        with gradwatch.track(optimizer, model, guard=guard):  # type: ignore[arg-type]
            for _ in range(5):
                stepped(model, optimizer)
        runs.append(left(model, optimizer))
    assert same(*runs)


def wild(
    guard: gradwatch.Guard, factors: list[float], usual: int = 25, scale: float = 1.0, by_hand: bool = False
) -> tuple[list[bool], gradwatch.Watch]:
    """A usual run, then steps whose gradients are so many times as large; which of these have changed anything."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=True)
    moved = []
    with gradwatch.track(optimizer, guard=guard) as watch:
        for number, factor in enumerate([1.0] * usual + factors):
            if number == usual:
                assert len(watch.history) == usual  # what the rule holds a norm against is known
            optimizer.zero_grad()
            size = (1.0 + 0.01 * (number % 3)) * factor
            if by_hand:
                weight.grad = torch.full((2,), size)
            else:
                (weight.sum() * size * scale).backward()
                optimizer.grad_scale = torch.tensor(scale)  # type: ignore[attr-defined]
            before = weight.detach().clone()
            optimizer.step()
            moved.append(not torch.equal(before, weight.detach()))
    return moved[usual:], watch


def test_a_step_far_above_the_usual_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradwatch.refusing, "block_of", lambda *_: pytest.fail("the host has looked"))
    moved, watch = wild(gradwatch.Guard("skip", explosion="skip"), [1.0, 1000.0, 1000.0, 1.0])
    assert moved == [True, False, False, True]
    assert [record.step for record in watch.history if record.skipped] == [27, 28]


def test_a_gradient_that_no_backward_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradwatch.refusing, "block_of", lambda *_: pytest.fail("the host has looked"))
    moved, _ = wild(gradwatch.Guard("skip", explosion="skip"), [1.0, 1000.0, 1.0], by_hand=True)
    assert moved == [True, False, True]


def test_norms_are_in_units_of_their_own() -> None:
    """As a GradScaler has a fused optimizer unscale."""
    moved, _ = wild(gradwatch.Guard("skip", explosion="skip"), [1.0, 1000.0, 1.0], scale=1024.0)
    assert moved == [True, False, True]


def test_only_after_so_many_in_a_row() -> None:
    guard = gradwatch.Guard("skip", explosion="skip", after=2)
    moved, _ = wild(guard, [1000.0, 1.0, 1000.0, 1000.0, 1000.0, 1.0, 1000.0])
    assert moved == [True, True, True, False, False, True, True]
    moved, _ = wild(guard, [1.0, math.nan, 1.0, math.inf, 1.0])
    assert moved == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("kind", "guard"),
    [
        ("adam", gradwatch.Guard("raise")),
        ("adam", gradwatch.Guard("skip", explosion="raise")),
        ("not fused", gradwatch.Guard("skip")),
        ("somebody else's", gradwatch.Guard("skip")),
    ],
)
def test_all_others_wait(kind: str, guard: gradwatch.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(torch.optim.Adam):
        """It may do more in its step than to call the kernel."""

    model = nn.Linear(3, 2)
    others = {
        "not fused": lambda p: torch.optim.Adam(p, lr=0.1),
        "somebody else's": lambda p: Mine(p, lr=0.1, fused=True),
    }
    optimizer = {**FUSED, **others}[kind](model.parameters())
    with gradwatch.track(optimizer, model, guard=guard):
        stepped(model, optimizer)
        waits = Waits(monkeypatch)
        for _ in range(3):
            stepped(model, optimizer)
        assert waits.count == 3


def test_what_a_scaler_has_found_counts_as_well() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        stepped(model, optimizer)
        for theirs in (0.0, 1.0):
            optimizer.grad_scale, optimizer.found_inf = torch.full((), 8.0), torch.full((), theirs)  # type: ignore[attr-defined]
            given = optimizer.found_inf  # type: ignore[attr-defined]
            assert stepped(model, optimizer) == (theirs == 0.0)
            assert optimizer.found_inf is given  # type: ignore[attr-defined]
            assert given == theirs
    assert [record.skipped for record in watch.history] == [False, False, True]


def test_a_grad_scaler() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    changed = []
    with gradwatch.track(optimizer, model, guard="skip") as watch:
        for factor in (1.0, 1.0, math.inf, 1.0):
            model.zero_grad()
            loss: Tensor = model(torch.ones(4, 3)).square().mean() * factor
            scaler.scale(loss).backward()
            before = left(model, optimizer)
            scaler.step(optimizer)
            scaler.update()
            changed.append(not same(left(model, optimizer)[:2], before[:2]))
        assert watch.health().internal_errors == 0
    assert changed == [True, True, False, True]
    assert [record.skipped for record in watch.history] == [False, False, True, False]


def test_after_a_step_that_has_failed_nothing_is_left_behind() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    with gradwatch.track(optimizer, model, guard="skip"):
        stepped(model, optimizer)
        backward(model, math.nan)
        optimizer.param_groups[0]["lr"] = "high"
        with pytest.raises(Exception, match="lr"):
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.1
        assert hasattr(optimizer, "found_inf")
        assert stepped(model, optimizer)
        backward(model, math.nan)
        optimizer.param_groups[0]["lr"] = "high"
        with pytest.raises(Exception, match="lr"):
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.1
    assert not hasattr(optimizer, "found_inf")
    assert stepped(model, optimizer)
