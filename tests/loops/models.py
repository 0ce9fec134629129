"""Models small enough that a whole loop takes milliseconds, and what they are trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp(inputs: int = 4, outputs: int = 1) -> nn.Sequential:
    """Two layers and a dropout, which draws from the random state."""
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, outputs))


def smooth() -> nn.Sequential:
    """Three layers that draw nothing."""
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


class Net(nn.Module):
    """Two layers with names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).tanh())  # type: ignore[no-any-return]


def loss_of(model: nn.Module, scale: float = 10.0, inputs: int = 4) -> Tensor:
    """A loss on a new random batch, of the model's type and on the CPU, whatever the defaults are."""
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    x = torch.randn(6, inputs, dtype=dtype, device="cpu")
    loss: Tensor = (model(x) - 1.0).square().mean() * scale
    return loss


def overflow(loss: Tensor, there: bool) -> Tensor:
    """The loss, so large where asked for that its scaled gradients are Inf."""
    return loss * 1e37 if there else loss
