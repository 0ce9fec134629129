"""The reference workload's own code: updates a second, bare and tracked, and for which share of the time the device works.

``update`` draws a batch and learns from it; ``decision`` looks, drives, remembers and then updates, as training does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gradwatch
from tests.gpu.busy import work
from tests.gpu.packages import reason
from tests.gpu.stages import Found, Settings, Table
from tests.gpu.timing import Spread, Step, Timed, Way, alternate, spread
from tests.gpu.watching import BLOCK, QUICK_BLOCK

NEEDED = ("gymnasium", "rich", "tensorboard")
SECONDS, ROUNDS = 12.0, 7
QUICK_SECONDS, QUICK_ROUNDS = 0.2, 2
REMEMBERED, QUICK_REMEMBERED = 256, 8
COLUMNS = ("loop", "way", "updates a second", "quartiles", "kernels us", "device busy %")


def pace(settings: Settings, found: Found) -> None:
    """A line for each loop and way."""
    why = reason(NEEDED)
    if why is not None:
        found.left_out.append(f"the pace of the TD3 workload: {why}")
        return
    if settings.device.type != "cuda":
        found.left_out.append("how busy the device is: there is no CUDA device")
    table = Table("The pace of the TD3 workload", COLUMNS, [])
    found.tables.append(table)
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(settings, Path(folder))
        for name, step in (("update", workload.update), ("decision", workload.decide)):
            found.data[name] = measured = measure(workload.ways(step), settings)
            table.rows.extend(rows(name, measured))
        if workload.internal_errors:
            found.failures.append(f"pace: {workload.internal_errors} errors inside gradwatch")


class Workload:
    """Agent, environment and buffer of ``examples.carla_td3`` in the preset ``fixed``."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        # What it needs may be missing: it is imported on use.
        from examples.carla_td3.evaluation import make_env
        from examples.carla_td3.options import parse
        from examples.carla_td3.replay import Replay
        from examples.carla_td3.td3 import TD3

        remembered, batch = (QUICK_REMEMBERED, 2) if settings.quick else (REMEMBERED, 64)
        options = parse(["--batch-size", str(batch), "--prometheus-port", "0", "--device", str(settings.device)])
        torch.manual_seed(options.seed)
        self.options, self.quick = options, settings.quick
        self.chance = np.random.default_rng(options.seed)
        self.env, self.agent = make_env(options), TD3(options, torch.device(options.device))
        self.replay = Replay(remembered, folder)
        self.internal_errors = 0
        self.observation, _ = self.env.reset(seed=options.seed)
        for _ in range(remembered):
            self.drive(self.chance.uniform(-1.0, 1.0, 2).astype(np.float32))

    def update(self) -> None:
        self.agent.update(self.replay.sample(self.options.batch_size, self.chance, self.agent.device))

    def decide(self) -> None:
        self.drive(self.agent.act(self.observation))
        self.update()

    def drive(self, action: Any) -> None:
        following, reward, terminated, truncated, _ = self.env.step(action)
        self.replay.add(self.observation, action, reward, following, terminated)
        self.observation = self.env.reset()[0] if terminated or truncated else following

    def ways(self, step: Step) -> dict[str, Way]:
        @contextmanager
        def bare() -> Iterator[Step]:
            yield step

        @contextmanager
        def tracked() -> Iterator[Step]:
            optimizers = {"actor": self.agent.actor_optimizer, "critic": self.agent.critic_optimizer}
            parts = {"actor": self.agent.actor, "critic": self.agent.critic}
            modules = {f"{side}_{name}": getattr(parts[side], name) for side in parts for name in ("cnn", "mlp")}
            with gradwatch.track(optimizers, modules) as watch:
                yield step
            self.internal_errors += watch.health().internal_errors

        block = QUICK_BLOCK if self.quick else BLOCK
        return {"bare": Way(bare, block), "tracked": Way(tracked, block)}


def measure(ways: dict[str, Way], settings: Settings) -> dict[str, Any]:
    """By way: seconds an update, and microseconds of kernels in it; None where no device can be asked."""
    seconds, rounds = (QUICK_SECONDS, QUICK_ROUNDS) if settings.quick else (SECONDS, ROUNDS)
    timed = alternate(ways, settings.device, seconds, rounds)
    # Profiling slows the host down: what the device has to do is counted apart from the time that it takes.
    asked: Callable[[Way], Any] = work if settings.device.type == "cuda" else lambda way: None
    return {name: summary(timed[name], asked(way)) for name, way in ways.items()}


def summary(timed: list[Timed], worked: dict[str, float] | None) -> dict[str, Any]:
    """The rate with its quartiles, and the share of an update's time in which kernels ran."""
    rate = spread([1.0 / one.device for one in timed])
    if worked is None:
        return {"rate": asdict(rate), "us": None, "busy": None}
    return {"rate": asdict(rate), "us": worked["us"], "busy": worked["us"] * 1e-6 * rate.median}


def rows(name: str, measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of the table for one loop."""
    return [(name, way, *_cells(told)) for way, told in measured.items()]


def _cells(told: dict[str, Any]) -> tuple[str, ...]:
    rate = Spread(**told["rate"])
    known = told["busy"] is not None
    work_and_share = (f"{told['us']:.0f}", f"{100 * told['busy']:.1f}") if known else ("unknown", "unknown")
    return f"{rate.median:.1f}", f"{rate.low:.1f} to {rate.high:.1f}", *work_and_share
