"""Small nets and what is measured of them by hand, without gradwatch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tests.zoo.run import Run

__all__ = ["batch", "convolutions", "filled", "mlp", "norm", "optimized", "silent", "trained"]


def mlp(
    inputs: int = 6, hidden: int = 16, outputs: int = 2, activation: type[nn.Module] = nn.Tanh
) -> nn.Sequential:
    """Three layers, the middle one an activation."""
    return nn.Sequential(nn.Linear(inputs, hidden), activation(), nn.Linear(hidden, outputs))


def batch(*shape: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape)


def convolutions(channels: int = 4, outputs: int = 6) -> nn.Sequential:
    """A CNN for images of 1 x 6 x 6."""
    layers = nn.Conv2d(1, channels, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(channels * 16, outputs)
    return nn.Sequential(*layers)


def filled(layer: nn.Module, weight: float | None = None, bias: float | None = None) -> nn.Module:
    """The layer with constant weights or biases."""
    for value, parameter in ((weight, layer.weight), (bias, layer.bias)):
        if value is not None and isinstance(parameter, Tensor):
            nn.init.constant_(parameter, value)
    return layer


def _gradients(of: nn.Module | Iterable[Tensor]) -> list[Tensor]:
    parameters = of.parameters() if isinstance(of, nn.Module) else of
    return [p.grad.detach() for p in parameters if p.grad is not None]


def silent(of: nn.Module | Iterable[Tensor]) -> bool:
    """No gradient is there, or every one is exactly 0: compared element by element."""
    return not any(value != 0.0 for g in _gradients(of) for value in g.to_dense().double().flatten().tolist())


def norm(of: nn.Module | Iterable[Tensor]) -> float:
    """The L2 norm of the gradients, summed exactly by ``math.fsum``."""
    return math.sqrt(math.fsum(v * v for g in _gradients(of) for v in g.to_dense().double().flatten().tolist()))


def trained(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Tensor:
    """``zero_grad`` and ``backward``; the step is left to the loop."""
    optimizer.zero_grad()
    value = loss()
    value.backward()
    return value


def optimized(
    run: Run,
    modules: nn.Module | dict[str, nn.Module],
    loss: Callable[[], Tensor],
    ill: Callable[[], bool],
    optimizer: torch.optim.Optimizer | None = None,
    steps: int = 40,
) -> None:
    """A plain loop: ``zero_grad``, ``backward`` and ``step``, by Adam over all of the modules if nothing else is given.

    Args:
        run: the run.
        modules: what is tracked.
        loss: of one step.
        ill: whether the fault is there, asked between ``backward`` and ``step``.
        optimizer: in place of Adam.
        steps: how many.
    """
    if optimizer is None:
        holder = modules if isinstance(modules, nn.Module) else nn.ModuleDict(modules)
        optimizer = torch.optim.Adam(holder.parameters(), lr=1e-3)
    with run.track(optimizer, modules):
        for _ in run.steps(steps):
            trained(optimizer, loss)
            run.fault(ill())
            optimizer.step()
