"""Judging a driver: whole episodes on fixed seeds, counted by what a driver is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.carla_td3.env import SCENARIOS, DrivingBase, DrivingEnv, Observation
from examples.carla_td3.env.carla import CarlaEnv, server_at
from examples.carla_td3.options import Options

__all__ = ["Episode", "Evaluation", "evaluate", "make_env", "straight_on"]

Action = npt.NDArray[np.float32]

# Starts that training never sees: its own episodes are drawn on from ``--seed``.
FIRST_SEED = 1_000_000
SATURATED = 0.95


@dataclass
class Episode:
    """One episode so far.

    Attributes:
        reward: sum over its decisions.
        steps: decisions taken.
        route: share of the route that was driven, 0 to 1.
        end: ``collided``, ``off_road``, ``finished`` or ``time out``.
    """

    reward: float = 0.0
    steps: int = 0
    route: float = 0.0
    end: str = ""

    def take(self, reward: float, info: dict[str, Any], truncated: bool) -> None:
        self.reward += reward
        self.steps += 1
        self.route = info["route"]
        ends = [name for name in ("collided", "off_road", "finished") if info[name]]
        self.end = ends[0] if ends else "time out" if truncated else ""


@dataclass(frozen=True)
class Evaluation:
    """Episodes, and every action (n, 2) that was taken in them."""

    episodes: Sequence[Episode]
    actions: npt.NDArray[np.float32] = field(repr=False)

    @property
    def reward(self) -> float:
        return float(np.mean([episode.reward for episode in self.episodes]))

    @property
    def route(self) -> float:
        """Mean share of the route, 0 to 1."""
        return float(np.mean([episode.route for episode in self.episodes]))

    @property
    def ends(self) -> Counter[str]:
        return Counter(episode.end for episode in self.episodes)

    @property
    def spread(self) -> float:
        """Standard deviation over the states of the action that varies less: 0 for a constant policy."""
        return float(self.actions.std(axis=0).min())

    @property
    def saturated(self) -> float:
        """Share of actions beyond 0.95, where tanh has a tenth of its slope left."""
        return float((np.abs(self.actions) > SATURATED).mean())

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end.replace('_', ' ')}" for end, count in self.ends.most_common())
        return (
            f"route {self.route:.1%}, return {self.reward:.1f} (of {len(self.episodes)} episodes {ends}); actions "
            f"spread {self.spread:.3f}, {self.saturated:.0%} saturated"
        )


def make_env(options: Options) -> DrivingBase:
    """The environment that the options ask for; ``close`` it."""
    if options.env == "carla":
        server = server_at(options.host, options.port)
        return CarlaEnv(server, SCENARIOS[options.scenario], action_repeat=options.action_repeat)
    return DrivingEnv(SCENARIOS[options.scenario], action_repeat=options.action_repeat)


def evaluate(act: Callable[[Observation], Action], env: DrivingBase, episodes: int) -> Evaluation:
    """Drive whole episodes without noise; each call drives the same ones."""
    driven, actions = [], []
    for number in range(episodes):
        observation, _ = env.reset(seed=FIRST_SEED + number)
        episode = Episode()
        while not episode.end:
            actions.append(act(observation))
            observation, reward, _, truncated, info = env.step(actions[-1])
            episode.take(reward, info, truncated)
        driven.append(episode)
    return Evaluation(driven, np.array(actions))


def straight_on(observation: Observation) -> Action:
    """The constant policy that gets farthest: what a trained one has to beat."""
    return np.array([0.0, 0.3], dtype=np.float32)
