"""Loops that are unlike the plain one make hardly more calls for it, also for what goes on for the whole of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gradwatch
from gradwatch import shield
from gradwatch.reporting import Reporting
from tests.bench.calls import STEPS, WARM, calls_of


@dataclass
class Loop:
    """A model of 13 linear layers under SGD, and what is unlike others in it.

    Attributes:
        changed: does something with the layers before anything else.
        held: by an optimizer, of all layers.
        step: does a step with the optimizer, on the loss.
        other: optimizers besides, that step right after it.
        is_given: the tracker is given the model.
        layers: that of the end is the head.
    """

    changed: Callable[[nn.Sequential], object] = lambda _: None
    held: slice = field(default_factory=lambda: slice(None))
    step: Callable[[torch.optim.Optimizer, torch.Tensor, nn.Module], object] | None = None
    other: Callable[[], Mapping[str, torch.optim.Optimizer]] = dict
    is_given: bool = True

    def calls(self) -> float:
        """Calls that tracking adds, for each step of the one optimizer."""
        torch.manual_seed(0)
        layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(12)), nn.Linear(8, 1))
        self.changed(layers)
        optimizer = torch.optim.SGD(layers[self.held].parameters(), lr=1e-6)
        others = self.other()
        batch = torch.randn(16, 8)

        def run(steps: int) -> None:
            for _ in range(steps):
                self._step(optimizer, layers, batch)
                for other in others.values():
                    other.zero_grad()
                    sum(p.square().sum() for group in other.param_groups for p in group["params"]).backward()
                    other.step()

        run(STEPS)
        bare = calls_of(lambda: run(STEPS))
        with gradwatch.track({"sgd": optimizer, **others}, {"net": layers} if self.is_given else None):
            run(WARM)
            return (calls_of(lambda: run(STEPS)) - bare) / STEPS

    def _step(self, optimizer: torch.optim.Optimizer, layers: nn.Sequential, batch: torch.Tensor) -> None:
        loss = (layers(batch) - 1).square().mean()
        if self.step is not None:
            self.step(optimizer, loss, layers)
            return
        layers.zero_grad()
        loss.backward()
        clip_grad_norm_(layers.parameters(), 100.0)
        optimizer.step()


def never_zeroed(optimizer: torch.optim.Optimizer, loss: torch.Tensor, layers: nn.Module) -> None:
    loss.backward()
    clip_grad_norm_(layers.parameters(), 1e6)
    optimizer.step()


class Scaled:
    """A GradScaler of the CPU."""

    def __init__(self) -> None:
        self._scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def __call__(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, layers: nn.Module) -> None:
        layers.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        clip_grad_norm_(layers.parameters(), 100.0)
        self._scaler.step(optimizer)
        self._scaler.update()


def freeze_half(layers: nn.Sequential) -> None:
    layers[:8].requires_grad_(False)


def let_vanish(layers: nn.Sequential) -> None:
    """What comes to the first four layers is next to nothing."""
    with torch.no_grad():
        layers[4].weight *= 1e-9


def temperature() -> Mapping[str, torch.optim.Optimizer]:
    """Of the agent SAC: no module holds it."""
    return {"temperature": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1e-6)}


@pytest.mark.parametrize(
    ("loop", "at_most"),
    [
        (Loop(is_given=False), 1.1),
        (Loop(step=Scaled()), 2.0),
        (Loop(changed=freeze_half), 2.0),
        (Loop(held=slice(8, None)), 1.5),
        (Loop(step=never_zeroed), 1.5),
        (Loop(changed=let_vanish), 2.0),
        (Loop(other=temperature), 3.0),
    ],
    ids=[
        "no modules",
        "a scaler",
        "half is frozen",
        "half is left out",
        "never zeroed",
        "vanished",
        "a temperature",
    ],
)
def test_what_is_unlike_costs_hardly_more(loop: Loop, at_most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reporting, "SECONDS", math.inf)
    monkeypatch.setattr(shield, "_MAY_CAPTURE", False)
    plain, unlike = Loop().calls(), loop.calls()
    print(f"{unlike:.0f} calls a step, {plain:.0f} in the plain loop")
    assert unlike <= at_most * plain
