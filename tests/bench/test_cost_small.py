"""What tracking adds to a step where the tensors are small: figures to read, no limit to keep."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

import gradwatch

ROUNDS = 5


def tiny_mlp() -> tuple[nn.Module, Callable[[], Tensor], int]:
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    x = torch.randn(64, 32)
    return model, lambda: model(x).square().mean(), 200


class Many(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tensors = nn.ParameterList(nn.Parameter(torch.randn(64)) for _ in range(2000))


def many_tensors() -> tuple[nn.Module, Callable[[], Tensor], int]:
    model = Many()
    return model, lambda: torch.cat(list(model.tensors)).square().sum(), 5


def seconds_a_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return (time.perf_counter() - began) / steps


@pytest.mark.bench
@pytest.mark.parametrize("setup", [tiny_mlp, many_tensors])
def test_cost_of_tracking(
    setup: Callable[[], tuple[nn.Module, Callable[[], Tensor], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, loss, steps = setup()
        optimizer = torch.optim.Adam(model.parameters())
        seconds_a_step(optimizer, loss, 3)
        best = {"untracked": float("inf"), "tracked": float("inf")}
        # In turns, so that a slower spell of the machine meets both; the best round has the least of it.
        for _ in range(ROUNDS):
            for kind in best:
                around: AbstractContextManager[object] = (
                    gradwatch.track(optimizer, model) if kind == "tracked" else nullcontext()
                )
                with around:
                    seconds_a_step(optimizer, loss, 2)
                    best[kind] = min(best[kind], seconds_a_step(optimizer, loss, steps))
    finally:
        torch.set_num_threads(threads)
    plain, tracked = best["untracked"] * 1e6, best["tracked"] * 1e6
    with capsys.disabled():
        print(f"\n{setup.__name__}: {plain:.0f} us a step, {tracked:.0f} us tracked: {tracked - plain:+.0f} us")
