"""Trained drivers beside those that learn nothing: ``python -m examples.carla_td3.compare runs/TD3_*``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from examples.carla_td3.checkpoint import Checkpoints
from examples.carla_td3.env import SCENARIOS, DrivingBase, DrivingEnv, Observation
from examples.carla_td3.evaluation import Action, evaluate, make_env, straight_on
from examples.carla_td3.looking import drive, looked, without_camera
from examples.carla_td3.options import parse
from examples.carla_td3.td3 import TD3

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


def trained(folder: Path) -> tuple[str, TD3, DrivingBase]:
    """What it is called, the agent of the newest checkpoint of a run, and the environment it drives in."""
    options = parse(["--resume", str(folder), "--prometheus-port", "0", "--device", "cpu"])
    checkpoints = Checkpoints(folder)
    agent = TD3(options, torch.device(options.device))
    path = checkpoints.folder / f"checkpoint-{checkpoints.step}.pt"
    agent.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["parts"]["agent"])
    return f"{options.preset}, seed {options.seed}, {checkpoints.step}", agent, make_env(options)


def main() -> None:
    """Print a line for each driver, and of each trained one whether it looks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs")
    parser.add_argument(
        "--scenario", type=int, default=0, choices=tuple(SCENARIOS), help="of those that learn nothing"
    )
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--action-repeat", type=int, default=4)
    options = parser.parse_args()
    env = DrivingEnv(SCENARIOS[options.scenario], action_repeat=options.action_repeat)
    for name, make in BASELINES.items():
        _print(name, evaluate(make(), env, options.episodes))
    for name, agent, where in map(trained, options.runs):
        with where:
            _print(name, evaluate(agent.act, where, options.episodes))
            _print(f"{name}, gray camera", evaluate(without_camera(agent.act), where, options.episodes))
            _print(f"{name}, looking", looked(agent, drive(pure_pursuit, where)))


def _print(name: str, found: object) -> None:
    print(f"{name:32} {found}", flush=True)


if __name__ == "__main__":
    main()
