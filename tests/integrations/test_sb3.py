"""The callback of Stable-Baselines3 finds every optimizer of an agent, and measures what ``track`` does."""

from __future__ import annotations

from typing import Any

import pytest

import gradwatch
from tests.integrations.same import numbers
from tests.interop.library import library

sb3 = library("stable_baselines3")

pytestmark = pytest.mark.interop


def agent_of(kind: str, world: str = "Pendulum-v1", **settings: Any) -> Any:
    return getattr(sb3, kind)(
        "MlpPolicy", world, seed=7, device="cpu", policy_kwargs={"net_arch": [16]}, **settings
    )


def adapter(**options: Any) -> Any:
    from gradwatch.integrations.sb3 import Callback

    return Callback(**options)


OFF_POLICY = {"learning_starts": 20, "batch_size": 16}
BY_HAND: dict[str, Any] = {
    "TD3": lambda a: {"actor": a.actor.optimizer, "critic": a.critic.optimizer},
    "SAC": lambda a: {"actor": a.actor.optimizer, "critic": a.critic.optimizer, "ent_coef": a.ent_coef_optimizer},
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_an_actor_and_its_critic(kind: str) -> None:
    agent = agent_of(kind, **OFF_POLICY)
    with gradwatch.track(BY_HAND[kind](agent), {"actor": agent.actor, "critic": agent.critic}) as watch:
        agent.learn(50)
    callback = adapter()
    agent_of(kind, **OFF_POLICY).learn(50, callback=callback)
    assert numbers(callback.watch) == numbers(watch)
    assert set(watch.last) == set(BY_HAND[kind](agent))


@pytest.mark.parametrize(
    ("kind", "world", "settings"),
    [
        ("PPO", "Pendulum-v1", {"n_steps": 32, "batch_size": 16, "n_epochs": 2}),
        ("A2C", "Pendulum-v1", {"n_steps": 8}),
        ("DQN", "CartPole-v1", {"learning_starts": 20, "batch_size": 16, "train_freq": 1}),
    ],
)
def test_a_policy_with_one_optimizer(kind: str, world: str, settings: dict[str, Any]) -> None:
    agent = agent_of(kind, world, **settings)
    with gradwatch.track(agent.policy.optimizer, agent.policy) as watch:
        agent.learn(64)
    callback = adapter()
    agent_of(kind, world, **settings).learn(64, callback=callback)
    assert numbers(callback.watch) == numbers(watch)
    assert watch.history


def test_learning_on_goes_on_counting() -> None:
    agent, callback = agent_of("TD3", **OFF_POLICY), adapter()
    for _ in range(2):
        agent.learn(30, callback=callback, reset_num_timesteps=False)
    assert callback.watch["critic"].step == 10 + 30


def test_a_run_resumed_in_another_process_goes_on_counting() -> None:
    agent, first = agent_of("TD3", **OFF_POLICY), adapter()
    agent.learn(30, callback=first)
    second = adapter()
    second.load_state_dict(first.state_dict())
    agent.learn(30, callback=second, reset_num_timesteps=False)
    assert [record.step for record in second.watch.history if record.optimizer == "critic"] == list(range(11, 41))
