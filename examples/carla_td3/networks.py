"""The networks: one CNN for each side, the policy's MLP, and two Q heads.

Sizes are those of the agent that the project's seed report is about; ``count`` of each is checked by tests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ACTIONS", "FEATURES", "VECTOR", "Actor", "TwinCritic", "make_cnn", "normalised"]

VECTOR = 53
FEATURES = 512
ACTIONS = 2
HIDDEN = 256


def normalised(image: Tensor) -> Tensor:
    """uint8 pixels as the CNN sees them: float32 in [-1, 1]."""
    return (image.float() / 255.0 - 0.5) / 0.5


def make_cnn(layer_norm: bool) -> nn.Sequential:
    """(batch, 4, 84, 84) -> (batch, 512); 1,727,392 parameters with LayerNorm, 1,684,128 without."""
    layers: list[nn.Module] = []
    shapes = ((32, 20, 20), (64, 9, 9), (64, 7, 7))
    kernels = ((4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))
    for (inside, outside, size, stride), shape in zip(kernels, shapes, strict=True):
        layers += [nn.Conv2d(inside, outside, size, stride), *_tail(shape, layer_norm)]
    layers += [nn.Flatten(), nn.Linear(64 * 7 * 7, FEATURES), *_tail((FEATURES,), layer_norm)]
    return nn.Sequential(*layers)


def _tail(shape: tuple[int, ...], layer_norm: bool) -> list[nn.Module]:
    return [*([nn.LayerNorm(shape)] if layer_norm else []), nn.LeakyReLU(0.01)]


class Actor(nn.Module):
    """The policy: (batch, 512) features and (batch, 53) vector -> (batch, 2) in [-1, 1]; 211,202 parameters.

    Args:
        last_layer: bound of the uniform distribution that the last layer starts from; None for torch's own.
    """

    def __init__(self, last_layer: float | None = None) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(FEATURES + VECTOR, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.last = nn.Linear(HIDDEN, ACTIONS)
        if last_layer is not None:
            nn.init.uniform_(self.last.weight, -last_layer, last_layer)
            nn.init.uniform_(self.last.bias, -last_layer, last_layer)

    def forward(self, features: Tensor, vector: Tensor) -> Tensor:
        return torch.tanh(self.last(self.hidden(torch.cat([features, vector], dim=1))))


class TwinCritic(nn.Module):
    """Two Q functions of (features, vector, action) -> (batch, 1) each; 211,457 parameters each."""

    def __init__(self) -> None:
        super().__init__()
        self.q1 = _q_head()
        self.q2 = _q_head()

    def forward(self, features: Tensor, vector: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        together = torch.cat([features, vector, action], dim=1)
        return self.q1(together), self.q2(together)

    def first(self, features: Tensor, vector: Tensor, action: Tensor) -> Tensor:
        """Q1 alone: what the policy is trained on."""
        value: Tensor = self.q1(torch.cat([features, vector, action], dim=1))
        return value


def _q_head() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(FEATURES + VECTOR + ACTIONS, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, 1),
    )
