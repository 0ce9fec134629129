"""The replay buffer: a ring in files of the run's folder, pixels as uint8, five frames a transition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from examples.carla_td3.env import Observation
from examples.carla_td3.transfer import uploaded

__all__ = ["SPLIT", "Batch", "Replay"]

FRAMES, SIDE, VECTOR, ACTIONS = 4, 84, 53, 2
# Of a transition, as float32: vector, next vector, action, reward, not done.
SPLIT = [VECTOR, VECTOR, ACTIONS, 1, 1]


class Batch(NamedTuple):
    """``n`` transitions on the device; images (n, 4, 84, 84) uint8, reward and not_done (n, 1) float32."""

    image: Tensor
    next_image: Tensor
    vector: Tensor
    next_vector: Tensor
    action: Tensor
    reward: Tensor
    not_done: Tensor


class Replay:
    """A ring of transitions that outlives the process.

    The next stack of frames is this one, moved on by one frame: keeping their union, (5, 84, 84), takes 35 kB
    a transition where both stacks take 56 kB. The files are written as the transitions come, so that a
    checkpoint has to say only how many there were.

    Args:
        capacity: transitions to sample from, the newest.
        folder: of the two files; those of an earlier process are gone on with.
        spare: transitions kept beyond ``capacity``: as many as may come between two checkpoints, so that what
            comes after one overwrites nothing that a run that goes on from it samples from.
    """

    def __init__(self, capacity: int, folder: Path, spare: int = 0) -> None:
        self.capacity = capacity
        self._slots = capacity + spare
        self._frames = _ring(folder / "replay-frames.u1", np.uint8, (self._slots, FRAMES + 1, SIDE, SIDE))
        self._numbers = _ring(folder / "replay-numbers.f4", np.float32, (self._slots, sum(SPLIT)))
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
        place = self._added % self._slots
        self._frames[place, :FRAMES] = now["image"]
        self._frames[place, FRAMES] = following["image"][-1]
        self._numbers[place] = (*now["vector"], *following["vector"], *action, reward, 0.0 if terminated else 1.0)
        self._added += 1

    def sample(self, size: int, chance: np.random.Generator, device: torch.device) -> Batch:
        """``size`` transitions, drawn evenly and with replacement."""
        chosen = (self._added - 1 - chance.integers(len(self), size=size)) % self._slots
        frames, numbers = uploaded(self._frames[chosen], device), uploaded(self._numbers[chosen], device)
        return Batch(frames[:, :FRAMES], frames[:, 1:], *torch.split(numbers, SPLIT, dim=1))

    def transition(self, number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """The ``number``-th that came, from 1, while it is held: pictures (5, 84, 84), numbers as in ``SPLIT``."""
        place = (number - 1) % self._slots
        return np.asarray(self._frames[place]), np.asarray(self._numbers[place])

    def vectors(self) -> npt.NDArray[np.float32]:
        """(n, 53): the vectors of all transitions that are there."""
        return np.asarray(self._numbers[: min(self._added, self._slots), :VECTOR])

    def state_dict(self) -> dict[str, Any]:
        """How many transitions came; they themselves are in the files, which are brought to the disk."""
        self._frames.flush()
        self._numbers.flush()
        return {"added": self._added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._added = state["added"]


def _ring(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    return np.memmap(path, kind, "r+" if path.exists() else "w+", shape=shape)
