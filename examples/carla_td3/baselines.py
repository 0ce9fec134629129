"""Drivers that learn nothing, to hold a trained one against: ``python -m examples.carla_td3.baselines``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

from examples.carla_td3.env import SCENARIOS, DrivingEnv, Observation
from examples.carla_td3.evaluation import Action, evaluate, straight_on

__all__ = ["BASELINES", "constant", "pure_pursuit"]

WHEELBASE, LARGEST_STEER, TARGET_SPEED = 2.875, 0.6, 8.33
# The fifth waypoint, ten metres ahead.
AIM = slice(3 + 2 * 4, 5 + 2 * 4)

Driver = Callable[[Observation], Action]


def constant(steering: float, pedal: float) -> Driver:
    """The same action whatever is seen."""
    action = np.array([steering, pedal], dtype=np.float32)
    return lambda observation: action


def chance(seed: int = 0) -> Driver:
    """Even over all actions."""
    random = np.random.default_rng(seed)
    return lambda observation: random.uniform(-1.0, 1.0, size=2).astype(np.float32)


def pure_pursuit(observation: Observation) -> Action:
    """Steer along the arc to a waypoint, hold the target speed; other vehicles are not looked at.

    Source: Coulter, "Implementation of the Pure Pursuit Path Tracking Algorithm", CMU-RI-TR-92-01, 1992.
    """
    speed = 30.0 * float(observation["vector"][0])
    ahead, right = (50.0 * observation["vector"][AIM]).tolist()
    arc = 2.0 * right / (ahead**2 + right**2)
    steering = math.atan(WHEELBASE * arc) / LARGEST_STEER
    return np.clip([steering, 0.5 * (TARGET_SPEED - speed)], -1.0, 1.0).astype(np.float32)


BASELINES: dict[str, Callable[[], Driver]] = {
    "random": chance,
    "standing": lambda: constant(0.0, -1.0),
    "creeping, throttle 0.06": lambda: constant(0.0, 0.06),
    "straight on, throttle 0.3": lambda: straight_on,
    "pure pursuit": lambda: pure_pursuit,
}


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", type=int, default=0, choices=tuple(SCENARIOS))
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--action-repeat", type=int, default=4)
    options = parser.parse_args()
    env = DrivingEnv(SCENARIOS[options.scenario], action_repeat=options.action_repeat)
    for name, make in BASELINES.items():
        print(f"{name:26} {evaluate(make(), env, options.episodes)}", flush=True)


if __name__ == "__main__":
    main()
