"""Models small enough that a whole loop takes milliseconds, and what they are trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp(inputs: int = 4, outputs: int = 1) -> nn.Sequential:
    """Two layers and a dropout, which draws from the random state."""
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, outputs))


def loss_of(model: nn.Module, scale: float = 10.0, inputs: int = 4) -> Tensor:
    """A loss on a new random batch."""
    loss: Tensor = (model(torch.randn(6, inputs)) - 1.0).square().mean() * scale
    return loss
