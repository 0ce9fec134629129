"""Stable-Baselines3's agents, unmodified, on gymnasium's classic control."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise

from tests.healthy.run import Run

__all__ = ["ppo", "sac", "td3"]

RANDOM_STEPS = 400
ROLLOUT, BATCH, EPOCHS = 1024, 64, 10


class _Returns(BaseCallback):
    """Tells of each episode's return."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def _on_step(self) -> bool:
        self._run.reached += [float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info]
        return True


def td3(run: Run, *, policy_delay: int = 2, rate: float = 1e-3) -> None:
    agent = TD3(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=rate,
        learning_starts=RANDOM_STEPS,
        batch_size=128,
        gamma=0.98,
        policy_delay=policy_delay,
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        policy_kwargs={"net_arch": [128, 128]},
        seed=run.seed,
        device="cpu",
    )
    optimizers = {"actor": agent.actor.optimizer, "critic": agent.critic.optimizer}
    with run.track(optimizers, {"actor_net": agent.actor, "critic_net": agent.critic}):
        agent.learn(RANDOM_STEPS + round(run.steps * policy_delay / (policy_delay + 1)), _Returns(run))


def sac(run: Run, *, rate: float = 1e-3) -> None:
    agent = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=rate,
        learning_starts=RANDOM_STEPS,
        batch_size=128,
        gamma=0.98,
        policy_kwargs={"net_arch": [128, 128]},
        seed=run.seed,
        device="cpu",
    )
    optimizers = {
        "actor": agent.actor.optimizer,
        "critic": agent.critic.optimizer,
        "entropy": agent.ent_coef_optimizer,
    }
    with run.track(optimizers, {"actor_net": agent.actor, "critic_net": agent.critic}):
        agent.learn(RANDOM_STEPS + round(run.steps / 3), _Returns(run))


def ppo(run: Run, *, environment: str = "CartPole-v1", **settings: Any) -> None:
    settings = {"learning_rate": 3e-4, "n_steps": ROLLOUT, "batch_size": BATCH, "n_epochs": EPOCHS} | settings
    agent = PPO("MlpPolicy", environment, seed=run.seed, device="cpu", **settings)
    with run.track(agent.policy.optimizer, agent.policy):
        updates = settings["n_epochs"] * settings["n_steps"] // settings["batch_size"]
        agent.learn(-(-run.steps // updates) * settings["n_steps"], _Returns(run))
