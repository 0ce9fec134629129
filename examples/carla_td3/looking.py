"""Whether a driver looks: how much what its CNN sees, and what it does, answers to the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from examples.carla_td3.env import DrivingBase, Observation
from examples.carla_td3.evaluation import Action, evaluate
from examples.carla_td3.td3 import TD3
from examples.carla_td3.transfer import uploaded

__all__ = ["Look", "drive", "looked", "without_camera"]


@dataclass(frozen=True)
class Look:
    """What was found over the states of a drive.

    Attributes:
        states: how many.
        features: how much the CNN's features vary from state to state: the root of their mean variance over
            states, as a share of the standard deviation of all of them. 0 for a CNN that sees the same everywhere.
        fresh: the same of a CNN that has learned nothing.
        steering: mean absolute change of the steering when the picture is taken away.
        pedal: that of throttle and brake.
    """

    states: int
    features: float
    fresh: float
    steering: float
    pedal: float

    def __str__(self) -> str:
        return (
            f"features vary by {self.features:.2g} of their spread over {self.states} states, a fresh CNN's by "
            f"{self.fresh:.2g}; without the picture the steering changes by {self.steering:.3f}, the pedal by "
            f"{self.pedal:.3f}"
        )


def without_camera(driver: Callable[[Observation], Action]) -> Callable[[Observation], Action]:
    """The same behind a gray picture: where it drives no worse, it does not look."""
    return lambda observation: driver({**observation, "image": np.full_like(observation["image"], 127)})


def drive(driver: Callable[[Observation], Action], env: DrivingBase) -> list[Observation]:
    """The states of an evaluation's first episode, as this driver comes by them."""
    seen: list[Observation] = []

    def remembering(observation: Observation) -> Action:
        seen.append(observation)
        return driver(observation)

    evaluate(remembering, env, 1)
    return seen


def looked(agent: TD3, seen: list[Observation]) -> Look:
    """Ask of each of these states, which are to be the same for all that are compared."""
    gray = without_camera(agent.act)
    change = np.mean([np.abs(agent.act(state) - gray(state)) for state in seen], axis=0)
    torch.manual_seed(agent.options.seed)
    fresh = TD3(agent.options, agent.device)
    return Look(len(seen), _variation(agent, seen), _variation(fresh, seen), float(change[0]), float(change[1]))


@torch.no_grad()
def _variation(agent: TD3, seen: list[Observation]) -> float:
    pictures = np.stack([state["image"] for state in seen])
    features = torch.cat([agent.see(agent.actor.cnn, uploaded(some, agent.device)) for some in pictures[:, None]])
    return float(features.var(0, unbiased=False).mean().sqrt() / features.std(unbiased=False))
