"""The replay buffer: preallocated, pixels as uint8, five frames a transition."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from examples.carla_td3.networks import ACTIONS, VECTOR

__all__ = ["Batch", "Replay"]

FRAMES, SIDE = 4, 84

Observation = dict[str, npt.NDArray[Any]]


class Batch(NamedTuple):
    """``n`` transitions on the device; images (n, 4, 84, 84) uint8, reward and not_done (n, 1) float32."""

    image: Tensor
    vector: Tensor
    action: Tensor
    reward: Tensor
    next_image: Tensor
    next_vector: Tensor
    not_done: Tensor


class Replay:
    """A ring of transitions.

    The next stack of frames is this one, moved on by one frame: keeping their union, (5, 84, 84), takes 35 kB
    a transition where both stacks take 56 kB.

    Args:
        capacity: transitions kept; the oldest is overwritten.
        seed: of the sampling.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity = capacity
        self._frames = np.empty((capacity, FRAMES + 1, SIDE, SIDE), dtype=np.uint8)
        self._vectors = np.empty((capacity, 2, VECTOR), dtype=np.float32)
        self._actions = np.empty((capacity, ACTIONS), dtype=np.float32)
        self._rewards = np.empty((capacity, 1), dtype=np.float32)
        self._not_done = np.empty((capacity, 1), dtype=np.float32)
        self._random = np.random.default_rng(seed)
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(
        self,
        now: Observation,
        action: npt.NDArray[np.float32],
        reward: float,
        following: Observation,
        terminated: bool,
    ) -> None:
        """Keep one transition; ``terminated`` alone, not truncation, ends the sum of future rewards."""
        place = self._added % self.capacity
        self._frames[place, :FRAMES] = now["image"]
        self._frames[place, FRAMES] = following["image"][-1]
        self._vectors[place] = now["vector"], following["vector"]
        self._actions[place] = action
        self._rewards[place] = reward
        self._not_done[place] = 0.0 if terminated else 1.0
        self._added += 1

    def sample(self, size: int, device: torch.device) -> Batch:
        """``size`` transitions, drawn evenly and with replacement."""
        chosen = self._random.integers(len(self), size=size)
        frames = torch.from_numpy(self._frames[chosen]).to(device)
        vectors = torch.from_numpy(self._vectors[chosen]).to(device)
        return Batch(
            image=frames[:, :FRAMES],
            vector=vectors[:, 0],
            action=torch.from_numpy(self._actions[chosen]).to(device),
            reward=torch.from_numpy(self._rewards[chosen]).to(device),
            next_image=frames[:, 1:],
            next_vector=vectors[:, 1],
            not_done=torch.from_numpy(self._not_done[chosen]).to(device),
        )
