"""Stable-Baselines3, unmodified: an agent makes its optimizers when it is made, and trains in ``learn``."""

from __future__ import annotations

from typing import Any

import pytest
from torch.optim import Optimizer

from tests.interop.library import library
from tests.interop.probe import Probe
from tests.loops.run import Run, conformance
from tests.loops.truth import Modules

sb3 = library("stable_baselines3")

pytestmark = pytest.mark.interop


def agent_of(kind: Any, **settings: Any) -> Any:
    return kind("MlpPolicy", "Pendulum-v1", seed=7, device="cpu", policy_kwargs={"net_arch": [16]}, **settings)


def learn(run: Run, agent: Any, optimizers: dict[str, Optimizer], modules: Modules, timesteps: int) -> None:
    with run.track(optimizers, modules) as tracker, Probe(run, optimizers):
        agent.learn(timesteps)
    run.leave(policy=agent.policy)
    assert tracker.watch is None or tracker.watch.alerts == []


@conformance
def test_td3(run: Run) -> None:
    agent = agent_of(sb3.TD3, learning_starts=20, batch_size=16)
    optimizers = {"actor": agent.actor.optimizer, "critic": agent.critic.optimizer}
    learn(run, agent, optimizers, {"actor_net": agent.actor, "critic_net": agent.critic}, timesteps=60)
    truths = run.trackers[0].truths
    assert len(truths) == 40 + 20
    # The policy is updated every second time, and its loss writes gradients into the critic as well.
    expected = [("critic", 1), ("critic", 1), ("actor", 1), ("critic", 2), ("critic", 1), ("actor", 1)]
    assert [(truth.optimizer, truth.passes) for truth in truths[:6]] == expected


@conformance
def test_sac(run: Run) -> None:
    agent = agent_of(sb3.SAC, learning_starts=20, batch_size=16)
    optimizers = {
        "entropy": agent.ent_coef_optimizer,
        "actor": agent.actor.optimizer,
        "critic": agent.critic.optimizer,
    }
    learn(run, agent, optimizers, {"actor_net": agent.actor, "critic_net": agent.critic}, timesteps=60)
    truths = run.trackers[0].truths
    assert len(truths) == 3 * 40
    assert [truth.optimizer for truth in truths[:3]] == ["entropy", "critic", "actor"]
    # The temperature is a tensor of its own, in no module.
    assert list(truths[0].after.parameters) == ["group0.param0"]


@conformance
def test_ppo(run: Run) -> None:
    agent = agent_of(sb3.PPO, n_steps=32, batch_size=16, n_epochs=3, max_grad_norm=0.5)
    learn(run, agent, {"optimizer": agent.policy.optimizer}, agent.policy, timesteps=64)
    truths = run.trackers[0].truths
    assert len(truths) == 64 // 16 * 3
    assert {truth.max_norm for truth in truths} == {0.5}
    assert any(truth.clipped for truth in truths)
    assert {"mlp_extractor", "action_net", "value_net", "(root)"} <= set(truths[0].after.modules)
