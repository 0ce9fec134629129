"""The training loop: drive, remember, learn. It knows nothing of gradwatch, which watches it from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from examples.carla_td3.agent import TD3, Update
from examples.carla_td3.env import DrivingEnv
from examples.carla_td3.replay import Replay

__all__ = ["Episode", "Events", "Schedule", "evaluate", "train"]

EXPLORATION_NOISE = 0.1


@dataclass(frozen=True)
class Schedule:
    """Steps of the environment: the first is ``start + 1``, the last ``last``.

    Updates begin once ``learning_starts`` transitions are there; random driving ends at that step of the whole
    training, so that a run that goes on from a checkpoint refills its buffer with what it has learned.
    """

    start: int
    last: int
    learning_starts: int
    batch_size: int
    seed: int


@dataclass
class Episode:
    """One episode so far: sums over its steps, and how it ended."""

    reward: float = 0.0
    steps: int = 0
    end: str = ""

    def take(self, reward: float, info: dict[str, Any], truncated: bool) -> None:
        self.reward += reward
        self.steps += 1
        ends = [name for name in ("collided", "off_road", "finished") if info[name]]
        self.end = " and ".join(ends) or ("time out" if truncated else "")


class Events(Protocol):
    """What the loop tells; ``step`` counts the environment's steps."""

    def stepped(self, step: int, info: dict[str, Any]) -> None: ...

    def updated(self, step: int, update: Update) -> None: ...

    def episode_ended(self, step: int, episode: Episode) -> None: ...


def train(agent: TD3, env: DrivingEnv, replay: Replay, schedule: Schedule, events: Events) -> None:
    """Run the schedule; ``replay`` is filled and ``agent`` is trained."""
    driver = _driver(agent, env, schedule)
    observation, _ = env.reset(seed=schedule.seed)
    episode = Episode()
    for step in range(schedule.start + 1, schedule.last + 1):
        action = driver(step, observation)
        following, reward, terminated, truncated, info = env.step(action)
        replay.add(observation, action, reward, following, terminated)
        episode.take(reward, info, truncated)
        observation = following
        if terminated or truncated:
            events.episode_ended(step, episode)
            episode = Episode()
            observation, _ = env.reset()
        if len(replay) > schedule.learning_starts or step - schedule.start > schedule.learning_starts:
            events.updated(step, agent.update(replay.sample(schedule.batch_size, agent.device)))
        # Last, so that whoever acts on a step finds it done.
        events.stepped(step, info)


def evaluate(agent: TD3, env: DrivingEnv, episodes: int, seed: int) -> list[Episode]:
    """Drive whole episodes without noise; the same seed drives the same ones."""
    results = []
    for number in range(episodes):
        observation, _ = env.reset(seed=seed + number)
        episode, over = Episode(), False
        while not over:
            observation, reward, terminated, truncated, info = env.step(agent.act(observation))
            episode.take(reward, info, truncated)
            over = terminated or truncated
        results.append(episode)
    return results


def _driver(
    agent: TD3, env: DrivingEnv, schedule: Schedule
) -> Callable[[int, dict[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]:
    """Who drives: chance at first, then the policy with Gaussian noise."""
    random = np.random.default_rng([schedule.seed, schedule.start])
    env.action_space.seed(schedule.seed)

    def drive(step: int, observation: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        if step <= schedule.learning_starts:
            return np.asarray(env.action_space.sample(), dtype=np.float32)
        noisy = agent.act(observation) + random.normal(0.0, EXPLORATION_NOISE, size=2)
        return np.clip(noisy, -1.0, 1.0).astype(np.float32)

    return drive
