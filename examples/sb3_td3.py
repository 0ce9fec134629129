"""Stable-Baselines3: one callback, which watches every optimizer of an agent.

Needs ``pip install "gradwatch[interop]"``; run ``python -m examples.sb3_td3``.
"""

from __future__ import annotations

from stable_baselines3 import TD3

import gradwatch
from gradwatch.integrations.sb3 import Callback


def train(timesteps: int = 300) -> gradwatch.Watch:
    """Train a TD3 agent on a pendulum and return what was watched."""
    callback = Callback()
    agent = TD3("MlpPolicy", "Pendulum-v1", learning_starts=100, seed=0, device="cpu")
    agent.learn(timesteps, callback=callback)
    assert callback.watch is not None
    return callback.watch


if __name__ == "__main__":
    for record in train().history[-6:]:
        print(f"{record.optimizer} {record.step}: {record.norm_before:.4g} -> {record.norm_after:.4g}")
