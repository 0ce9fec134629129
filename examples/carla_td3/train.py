"""Train a TD3 driving agent and watch its gradients: ``python -m examples.carla_td3.train --help``."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from torch.utils.tensorboard.writer import SummaryWriter

import gradwatch
from examples.carla_td3.agent import TD3
from examples.carla_td3.checklist import Checklist
from examples.carla_td3.env import SCENARIOS, DrivingEnv
from examples.carla_td3.folder import load_checkpoint, make_folder, save_checkpoint
from examples.carla_td3.loop import Schedule, evaluate, train
from examples.carla_td3.options import OptionError, Options, parse
from examples.carla_td3.presets import PRESETS
from examples.carla_td3.replay import Replay
from examples.carla_td3.reporting import Report, progress_bar

__all__ = ["main", "run"]

# 50,000 transitions are 1.8 GB; memory is taken as they come.
LARGEST_REPLAY = 50_000
EVALUATION_SEED = 1000


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 where it ran, whatever the checklist says; 2 where it cannot be meant; 130 if stopped."""
    try:
        checklist = run(parse(arguments))
    except (OptionError, gradwatch.errors.SinkError, gradwatch.errors.MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped by hand: what was logged up to here is in the run's folder.", file=sys.stderr)
        return 130
    rich.get_console().print(checklist.table())
    return 0


def run(options: Options) -> Checklist:
    """Train as asked for and return the checklist, filled in.

    Raises:
        OptionError: the folder cannot be written or the checkpoint not be used.
        SinkError: the Prometheus endpoint cannot be opened.
    """
    _seed(options.seed)
    agent = TD3(PRESETS[options.preset], _device(options.device))
    start = load_checkpoint(options, agent)
    folder = make_folder(options)
    writer = SummaryWriter(str(folder))
    checklist = Checklist()
    try:
        with gradwatch.track(agent.optimizers, agent.modules, sinks=_sinks(options, folder, writer, checklist)):
            _train(options, agent, start, folder, writer, checklist)
    finally:
        writer.close()
    rich.get_console().print(
        f"{agent.critic_updates} critic and {agent.actor_updates} actor updates; the run is in {folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return checklist


def _train(
    options: Options, agent: TD3, start: int, folder: Path, writer: SummaryWriter, checklist: Checklist
) -> None:
    console = rich.get_console()
    env = DrivingEnv(SCENARIOS[options.scenario])
    replay = Replay(min(options.max_timesteps, LARGEST_REPLAY), options.seed)
    schedule = Schedule(start, options.max_timesteps, options.learning_starts, options.batch_size, options.seed)
    with progress_bar(console) as bar:
        task = bar.add_task(f"{options.preset}, scenario {options.scenario}", total=options.max_timesteps)

        def advance(step: int) -> None:
            bar.update(task, completed=step)
            if _due(step, options.checkpoint_freq) or step == options.max_timesteps:
                save_checkpoint(folder, agent, step)
            if _due(step, options.eval_freq):
                # An environment of its own: the episode in training goes on undisturbed.
                judged = DrivingEnv(SCENARIOS[options.scenario])
                report.evaluated(step, evaluate(agent, judged, options.num_eval_episodes, EVALUATION_SEED))

        report = Report(writer, checklist, advance, console, options.debug)
        train(agent, env, replay, schedule, report)


def _sinks(options: Options, folder: Path, writer: SummaryWriter, checklist: Checklist) -> list[Any]:
    sinks: list[Any] = [
        gradwatch.sinks.Console(),
        # The writer itself, not its folder: TensorBoard follows one growing events file of a run at a time.
        gradwatch.sinks.TensorBoard(writer, prefix="debug"),
        gradwatch.sinks.Jsonl(folder / "gradwatch.jsonl"),
        checklist,
    ]
    if options.prometheus_port:
        sinks.append(gradwatch.sinks.Prometheus(port=options.prometheus_port))
    return sinks


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _device(name: str) -> torch.device:
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


if __name__ == "__main__":
    sys.exit(main())
