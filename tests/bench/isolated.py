"""A training step with nearly no work of its own: what tracking adds to it stands out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Isolated", "tiny_mlp"]


class _HandOut(torch.autograd.Function):
    """A loss whose backward pass hands out given gradients."""

    @staticmethod
    def forward(context: Any, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        context.gradients = gradients
        return torch.zeros(())

    @staticmethod
    def backward(context: Any, *_: Tensor) -> tuple[Any, ...]:
        return None, *context.gradients


class Isolated:
    """A model whose gradients are made beforehand, clipped by norm and taken by plain SGD.

    Args:
        model: its gradients are the same in every step.
        limit: of clipping; the norm of a tiny MLP is 268.
        gradients: of each parameter; random where None.
    """

    def __init__(
        self, model: nn.Module, *, limit: float = 200.0, gradients: Callable[[Tensor], Tensor] = torch.randn_like
    ) -> None:
        torch.manual_seed(0)
        self.model = model
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=1e-9)
        self.limit = limit
        self.gradients = [gradients(p) for p in self.parameters]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            _HandOut.apply(self.gradients, *self.parameters).backward()
            nn.utils.clip_grad_norm_(self.parameters, self.limit)
            self.optimizer.step()


def tiny_mlp() -> nn.Module:
    """6 tensors, 71,942 parameters: the actor of a small agent."""
    return nn.Sequential(
        nn.Linear(17, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 6), nn.Tanh()
    )
