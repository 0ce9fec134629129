"""The command line: what it takes, and one sentence for each thing that cannot be meant."""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from examples.carla_td3.env import SCENARIOS
from examples.carla_td3.presets import PRESETS

__all__ = ["OptionError", "Options", "parse"]

EXPLORED = 100


class OptionError(Exception):
    """An option that cannot be meant; its message is one sentence: what came, what was expected, what to do."""


@dataclass(frozen=True)
class Options:
    """The options, checked; each is described in ``--help``."""

    scenario: int
    max_timesteps: int
    seed: int
    debug: bool
    preset: str
    env: str
    host: str
    port: int
    device: str
    eval_freq: int
    num_eval_episodes: int
    checkpoint_freq: int
    resume: Path | None
    log_dir: Path
    batch_size: int
    learning_starts: int
    prometheus_port: int


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, without the usage that argparse prints first: ``--help`` has that."""
        raise OptionError(f"{message[:1].upper()}{message[1:]}: see --help for what is expected.")


def parse(arguments: list[str] | None = None) -> Options:
    """Read and check the command line.

    Raises:
        OptionError: an option cannot be meant.
    """
    options = Options(**vars(_parser().parse_args(arguments)))
    _check_choices(options)
    _check_numbers(options)
    _check_machine(options)
    return options


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m examples.carla_td3.train",
        description="Train a TD3 driving agent and watch its gradients.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_what(parser)
    _add_how_long(parser)
    _add_where(parser)
    return parser


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--scenario", type=int, default=0, help="0, 1 or 2: 20, 50 or 100 other vehicles")
    add("--preset", default="fixed", help="fixed: the agent that learns; legacy: the one that broke")
    add("--seed", type=int, default=42, help="of python, numpy, torch and the environment")
    add("--env", default="embedded", help="embedded: no server is needed; carla: not there yet")
    add("--host", default="127.0.0.1", help="of the CARLA server")
    add("--port", type=int, default=2000, help="of the CARLA server")
    add("--device", default="auto", help="auto, cpu or cuda")


def _add_how_long(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-timesteps", type=int, default=500, help="steps of the environment in all")
    add("--learning-starts", type=int, default=EXPLORED, help="steps of random driving before the first update")
    add("--batch-size", type=int, default=64, help="transitions in an update")
    add("--eval-freq", type=int, default=0, help="steps between evaluations; 0: none")
    add("--num-eval-episodes", type=int, default=3, help="episodes in an evaluation")
    add("--checkpoint-freq", type=int, default=0, help="steps between checkpoints; 0: one at the end")


def _add_where(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--resume", type=Path, default=None, help="checkpoint file to go on from")
    add("--log-dir", type=Path, default=Path("runs"), help="where the run's folder is made")
    add("--prometheus-port", type=int, default=19109, help="of the metrics endpoint; 0: no endpoint")
    add("--debug", action="store_true", help="print each episode and write the reward's terms to TensorBoard")


def _check_choices(options: Options) -> None:
    if options.scenario not in SCENARIOS:
        known = ", ".join(f"{i} ({n} vehicles)" for i, n in SCENARIOS.items())
        raise OptionError(f"--scenario got {options.scenario}, but there are {known}: choose one of these.")
    choices = {"preset": tuple(PRESETS), "env": ("embedded", "carla"), "device": ("auto", "cpu", "cuda")}
    for name, known_values in choices.items():
        value = getattr(options, name)
        if value not in known_values:
            raise OptionError(f"--{name} got {value!r}, but expects {_either(known_values)}: choose one of these.")
    if options.env == "carla":
        raise OptionError(
            "--env got 'carla', but the backend for a CARLA server is not there yet: use --env embedded."
        )


def _check_numbers(options: Options) -> None:
    for name in ("max_timesteps", "batch_size", "num_eval_episodes"):
        _at_least(options, name, 1)
    for name in ("learning_starts", "eval_freq", "checkpoint_freq", "seed"):
        _at_least(options, name, 0)
    if options.seed >= 2**32:
        raise OptionError(f"--seed got {options.seed}, but numpy expects it below 2**32: choose a smaller one.")
    for name, lowest in (("port", 1), ("prometheus_port", 0)):
        _at_least(options, name, lowest)
        if getattr(options, name) > 65535:
            raise OptionError(
                f"{_flag(name)} got {getattr(options, name)}, but ports end at 65535: choose one below."
            )
    if options.learning_starts >= options.max_timesteps:
        raise OptionError(
            f"--learning-starts got {options.learning_starts} with --max-timesteps {options.max_timesteps}, so "
            "that not one update would be made: choose fewer steps of random driving or more steps in all."
        )


def _check_machine(options: Options) -> None:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device got 'cuda', but torch sees no CUDA device here: use --device cpu or auto.")
    if options.resume is not None and not options.resume.is_file():
        raise OptionError(
            f"--resume got {str(options.resume)!r}, but no such file exists: give a checkpoint-*.pt of a run."
        )
    if options.prometheus_port and not _is_free(options.prometheus_port):
        raise OptionError(
            f"--prometheus-port got {options.prometheus_port}, but that port is in use or not allowed: "
            "choose another, or 0 for no endpoint."
        )


def _at_least(options: Options, name: str, lowest: int) -> None:
    value = getattr(options, name)
    if value < lowest:
        raise OptionError(f"{_flag(name)} got {value}, but expects {lowest} or more: choose a larger number.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As HTTP servers do: a port that an ended run left in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _either(values: tuple[str, ...]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"
