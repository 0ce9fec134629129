"""``python -m tests.healthy.dead_critic``: A2C of Stable-Baselines3 on CartPole, as it comes, whose critic dies.

It has returns to show, and is no healthy training. For each seed it prints what the default rules said, and of what
``vanishing`` said whether it is true: how many units of the critic's last tanh are flat, with a slope below 0.1, in
1,000 states drawn over what a pole can be in, and between which values the critic judges them.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter

import torch
from stable_baselines3 import A2C

import gradwatch
from gradwatch.records import Alert
from tests.machine import one_thread

STEPS_A_ROLLOUT = 5

# How far cart and pole go before an episode ends, and velocities of that size: position, velocity, angle, its velocity.
RANGE = torch.tensor([2.4, 3.0, 0.2, 3.0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.healthy.dead_critic", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=4000, help="of the optimizer")
    options = parser.parse_args()
    logging.getLogger("gradwatch").addHandler(logging.NullHandler())
    for seed in options.seeds:
        with one_thread():
            _train(seed, options.steps)


def _train(seed: int, steps: int) -> None:
    agent = A2C("MlpPolicy", "CartPole-v1", seed=seed, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    states = (2.0 * torch.rand((1000, 4), generator=generator) - 1.0) * RANGE
    count: Counter[str] = Counter()
    shown: set[str] = set()

    def told(alert: Alert) -> None:
        if alert.state != "firing":
            return
        kind = "no cause" if alert.cause is None else alert.cause.kind
        count[f"{alert.severity} {alert.rule} ({kind})"] += 1
        if alert.rule == "vanishing" and alert.severity not in shown:
            shown.add(alert.severity)
            print(
                f"seed {seed}, step {alert.step}: {alert.severity} vanishing at {alert.module}. {_critic(agent, states)}"
            )

    print(f"seed {seed}, step 0: {_critic(agent, states)}")
    with gradwatch.track(agent.policy.optimizer, agent.policy, on_alert=told):
        agent.learn(steps * STEPS_A_ROLLOUT)
    print(f"seed {seed}, step {steps}: {_critic(agent, states)}")
    print(f"seed {seed}: {', '.join(f'{n} {what}' for what, n in count.most_common())}")


def _critic(agent: A2C, states: torch.Tensor) -> str:
    with torch.no_grad():
        made = agent.policy.mlp_extractor.forward_critic(states)
        values = agent.policy.value_net(made)
    flat = float((1.0 - made.square() < 0.1).float().mean())
    return f"{flat:.0%} of its units are flat, values from {float(values.min()):.3g} to {float(values.max()):.3g}"


if __name__ == "__main__":
    main()
