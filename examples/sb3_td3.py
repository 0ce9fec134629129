"""Stable-Baselines3: an agent holds its optimizers from the start, one beside each network.

Needs ``pip install "gradwatch[interop]"``; run ``python -m examples.sb3_td3``.
"""

from __future__ import annotations

from stable_baselines3 import TD3

import gradwatch


def train(timesteps: int = 300) -> gradwatch.Watch:
    """Train a TD3 agent on a pendulum and return what was watched.

    SAC is tracked in the same way, with ``agent.ent_coef_optimizer`` as a third optimizer; the one optimizer of
    PPO and A2C is ``agent.policy.optimizer``.
    """
    agent = TD3("MlpPolicy", "Pendulum-v1", learning_starts=100, seed=0, device="cpu")
    with gradwatch.track(
        {"actor": agent.actor.optimizer, "critic": agent.critic.optimizer},
        {"actor_net": agent.actor, "critic_net": agent.critic},
    ) as watch:
        agent.learn(timesteps)
    return watch


if __name__ == "__main__":
    for record in train().history[-6:]:
        print(f"{record.optimizer} {record.step}: {record.norm_before:.4g} -> {record.norm_after:.4g}")
