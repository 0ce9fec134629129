"""``python -m tests.healthy.first_steps``: how far the norms of healthy runs jump in their first 20 steps.

For each optimizer of each run the largest ratio is sought, over all ways to divide its first 20 norms before clipping
into some and those after: the median of those after, divided by the largest before. See docs/healthy.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import median_low

from rich.console import Console
from rich.progress import track as progress
from rich.table import Table
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

from gradwatch.integrations.sb3 import Callback
from tests.healthy.recipes import RECIPES
from tests.healthy.run import Run, Workload, carried_out
from tests.healthy.warm_ups import WARM_UPS
from tests.healthy.workloads import VARIANTS, WORKLOADS

FIRST = 20


def _as_it_comes(run: Run, *, kind: type, environment: str, steps: int) -> None:
    """An agent of Stable-Baselines3 with its own settings."""
    callback = Callback()
    kind("MlpPolicy", environment, seed=run.seed, device="cpu").learn(steps, callback)
    run.watch = callback.watch
    run.reached += [0.0, 0.0]  # too short to say whether it learns


# Steps of the environment by which each optimizer has made 20 of its own.
AGENTS = [
    Workload(
        f"{kind.__name__} on {environment}",
        0,
        partial(_as_it_comes, kind=kind, environment=environment, steps=n),
        "return",
    )
    for kind, environment, n in (
        (A2C, "Pendulum-v1", 120),
        (A2C, "CartPole-v1", 120),
        (PPO, "Pendulum-v1", 2048),
        (PPO, "CartPole-v1", 2048),
        (DQN, "CartPole-v1", 200),
        (TD3, "Pendulum-v1", 160),
        (DDPG, "Pendulum-v1", 160),
        (SAC, "Pendulum-v1", 140),
    )
]


def largest_jump(norms: Sequence[float]) -> float:
    """How many times the largest norm before the median of those after is, where they are divided best."""
    divided = [(max(norms[:place]), norms[place:]) for place in range(1, len(norms) - 2)]
    return max((median_low(after) / before for before, after in divided if before > 0.0), default=0.0)


def sequences(workload: Workload, seed: int, steps: int | None) -> dict[str, list[float]]:
    """The first norms before clipping, by optimizer."""
    found: dict[str, list[float]] = defaultdict(list)
    watch = carried_out(workload, seed, steps).watch
    for record in watch.history:
        if len(found[record.optimizer]) < FIRST:
            found[record.optimizer].append(record.norm_before)
    return {name: norms for name, norms in found.items() if len(norms) == FIRST}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.healthy.first_steps", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--agents", type=int, default=12, metavar="N", help="seeds of each agent")
    parser.add_argument("--seeds", type=int, nargs="*", default=[11, 12], help="of the workloads and recipes")
    options = parser.parse_args(arguments)
    logging.getLogger("gradwatch").addHandler(logging.NullHandler())
    runs: list[tuple[Workload, int, int | None]] = [
        (a, seed, None) for a in AGENTS for seed in range(options.agents)
    ]
    others = (*WORKLOADS, *VARIANTS, *RECIPES, *WARM_UPS)
    runs += [(workload, seed, 4 * FIRST) for workload in others for seed in options.seeds]
    ratios: dict[str, list[float]] = defaultdict(list)
    for workload, seed, steps in progress(runs, "trainings"):
        for optimizer, norms in sequences(workload, seed, steps).items():
            ratios[f"{workload.name}, {optimizer}"].append(largest_jump(norms))
    _show(ratios)
    return 0


def _show(ratios: dict[str, list[float]], most: int = 15) -> None:
    table = Table("optimizer", "sequences", "largest ratios")
    for name, found in sorted(ratios.items(), key=lambda item: -max(item[1]))[:most]:
        table.add_row(name, str(len(found)), _largest(found))
    every = [ratio for found in ratios.values() for ratio in found]
    table.add_row("all", str(len(every)), _largest(every))
    Console().print(table)


def _largest(ratios: Iterable[float]) -> str:
    return ", ".join(f"{ratio:.3g}" for ratio in sorted(ratios, reverse=True)[:5])


if __name__ == "__main__":
    sys.exit(main())
