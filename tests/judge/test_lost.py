"""The rule on passes that were erased before the step, in loops that erase by mistake and in loops that mean it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.measure.erased import ErasedPasses
from gradwatch.records import Alert

STEPS = 8


class Loop:
    """A network, its optimizer, and steps of it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def loss(self) -> Tensor:
        return self.net(torch.randn(8, 4)).pow(2).mean()

    def told(self, step: Callable[[Loop], None], steps: int = STEPS) -> list[Alert]:
        with gradwatch.track(self.optimizer, self.net) as watch:
            for _ in range(steps):
                step(self)
        return [alert for alert in watch.alerts if alert.rule == "lost"]


def erases(set_to_none: bool, clipped: bool = False) -> Callable[[Loop], None]:
    def step(loop: Loop) -> None:
        for _ in range(4):
            loop.optimizer.zero_grad(set_to_none)
            loop.loss().backward()
        if clipped:
            nn.utils.clip_grad_norm_(loop.net.parameters(), 0.01)
        loop.optimizer.step()

    return step


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("set_to_none", [False, True])
def test_an_accumulation_that_is_none(set_to_none: bool, clipped: bool) -> None:
    (alert,) = Loop().told(erases(set_to_none, clipped))
    assert (alert.severity, alert.step, alert.value) == ("critical", 4, 3.0)
    assert "3 of the 4 backward passes" in alert.message
    assert alert.cause is not None
    assert (alert.cause.kind, alert.cause.evidence["lost_passes"]) == ("zeroed", 3)


class _Times(torch.autograd.Function):
    """The sum of weights of any type."""

    @staticmethod
    def forward(context: Any, weights: Tensor) -> Tensor:
        context.dtype = weights.dtype
        return weights.to(torch.complex64).abs().sum()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].expand(3).to(context.dtype)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_weights_that_have_no_sum_or_no_real_one(dtype: torch.dtype) -> None:
    weights = nn.Parameter(torch.full((3,), 1 + 1j).to(dtype) if dtype.is_complex else torch.ones(3).to(dtype))
    optimizer = torch.optim.SGD([weights])
    with gradwatch.track(optimizer) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            _Times.apply(weights).backward()
    assert watch.health().internal_errors == 0


def test_passes_without_a_step_hold_the_weights_they_saw_once() -> None:
    passes, net = ErasedPasses(), Loop().net
    for _ in range(3):
        passes.wrote(1, list(net.parameters()))
        passes.wrote(1, list(net.parameters()))
        passes.erased(list(net.parameters()))
    assert len({id(one.weights) for one in passes._erased}) == 1


def test_each_third_step_is_measured() -> None:
    loop, step = Loop(), erases(True)
    with gradwatch.track(loop.optimizer, loop.net, every=3) as watch:
        for _ in range(20):
            step(loop)
    assert [record.lost_passes for record in watch.history] == [3] * 6
    assert [alert.rule for alert in watch.alerts] == ["lost"]


def accumulates(loop: Loop) -> None:
    loop.optimizer.zero_grad()
    for _ in range(4):
        loop.loss().backward()
    loop.optimizer.step()


def sharpness(move: Callable[[Tensor, Tensor], object]) -> Callable[[Loop], None]:
    """Both passes from one line, the weights moved in between."""

    def step(loop: Loop) -> None:
        before = copy.deepcopy(loop.net.state_dict())
        for again in (False, True):
            loop.optimizer.zero_grad()
            loop.loss().backward()
            with torch.no_grad():
                for parameter in () if again else tuple(loop.net.parameters()):
                    move(parameter, 0.05 * parameter.grad)
        loop.net.load_state_dict(before)
        loop.optimizer.step()

    return step


def looks_and_drops(loop: Loop) -> None:
    loop.optimizer.zero_grad()
    loop.loss().backward()
    loop.optimizer.zero_grad()
    loop.loss().backward()
    loop.optimizer.step()


def collects(replace: bool) -> Callable[[Loop], None]:
    """Each sample's gradient by itself, as for privacy; the step gets their sum."""

    def step(loop: Loop) -> None:
        parameters = list(loop.net.parameters())
        sums = [torch.zeros_like(p) for p in parameters]
        for _ in range(4):
            loop.optimizer.zero_grad()
            loop.loss().backward()
            for total, p in zip(sums, parameters, strict=True):
                total += p.grad / 4
        for total, p in zip(sums, parameters, strict=True):
            if replace:
                p.grad = total
            else:
                p.grad.data.copy_(total)
        loop.optimizer.step()

    return step


def drops_some(loop: Loop) -> None:
    """Batches with a large loss are left out."""
    for _ in range(int(torch.randint(1, 4, ()))):
        loop.optimizer.zero_grad()
        loop.loss().backward()
    loop.optimizer.step()


HEALTHY = {
    "accumulation": accumulates,
    "sharpness": sharpness(lambda p, by: p.add_(by)),
    "sharpness that hides it": sharpness(lambda p, by: p.data.add_(by)),
    "sharpness by other tensors": sharpness(lambda p, by: setattr(p, "data", p.data + by)),
    "a gradient looked at and dropped": looks_and_drops,
    "gradients collected": collects(replace=True),
    "gradients collected in place": collects(replace=False),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_loops_that_mean_it_are_silent(name: str) -> None:
    assert Loop().told(HEALTHY[name], 20) == []


def test_batches_that_are_dropped_now_and_then_are_none() -> None:
    # As many in three steps running, by chance, are not told apart.
    assert Loop().told(drops_some, 6) == []


def test_a_line_search_is_silent() -> None:
    loop = Loop()
    loop.optimizer = torch.optim.LBFGS(loop.net.parameters(), max_iter=5)
    x = torch.randn(8, 4)

    def closure() -> Tensor:
        loop.optimizer.zero_grad()
        loss = (loop.net(x) - 1.0).pow(2).mean()
        loss.backward()
        return loss

    assert loop.told(lambda _: loop.optimizer.step(closure), 10) == []  # type: ignore[arg-type]


def test_a_critic_through_which_the_actors_loss_runs_has_lost_nothing() -> None:
    actor, critic = nn.Linear(4, 2), nn.Linear(2, 1)
    optimizers = {n: torch.optim.SGD(m.parameters(), 0.01) for n, m in (("actor", actor), ("critic", critic))}
    with gradwatch.track(optimizers, {"actor": actor, "critic": critic}) as watch:
        for _ in range(12):
            for name in optimizers:
                optimizers[name].zero_grad()
                made = critic(actor(torch.randn(8, 4))) if name == "actor" else critic(torch.randn(8, 2))
                made.pow(2).mean().backward()
                optimizers[name].step()
    assert [alert for alert in watch.alerts if alert.rule == "lost"] == []
