"""What can be set: the options with their defaults, and the three presets that differ in some of them."""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from examples.carla_td3.env import SCENARIOS

__all__ = ["PRESETS", "OptionError", "Options", "parse"]

# What each preset sets otherwise than the defaults below, which are those of ``fixed``.
PRESETS: dict[str, dict[str, Any]] = {
    # The agent that learns: each of its values was measured, see the README.
    "fixed": {},
    # The wiring is right and everything else as it comes: tanh saturates and the policy is one constant action.
    "unbalanced": {
        "tau": 0.005,
        "action_repeat": 1,
        "reward_scale": 1.0,
        "image_weight": 1.0,
        "balanced": False,
        "action_penalty": 0.0,
        "warm_up": "uniform",
    },
    # The agent of the seed report.
    "legacy": {
        "tau": 0.005,
        "action_repeat": 1,
        "reward_scale": 1.0,
        "image_weight": 1.0,
        "balanced": False,
        "action_penalty": 0.0,
        "warm_up": "uniform",
        "layer_norm": False,
        "target_cnns": False,
        "shared_features": True,
        "wrong_metric": True,
    },
}


_RUNS = Path("runs")


class OptionError(Exception):
    """An option that cannot be meant; its message is one sentence: what came, what was expected, what to do."""


def _option(default: Any, text: str, low: float | None = None, choices: Sequence[Any] = ()) -> Any:
    """A field that is an option of the command line: ``low`` is the lowest value that makes sense."""
    return field(default=default, metadata={"help": text, "low": low, "choices": tuple(choices)})


@dataclass(frozen=True)
class Options:
    """Every option and hyperparameter; all of them are in the run's ``config.json``."""

    scenario: int = _option(0, "0, 1 or 2: 20, 50 or 100 other vehicles", choices=tuple(SCENARIOS))
    preset: str = _option(
        "fixed",
        "fixed: the agent that learns; unbalanced: the one that died unnoticed; legacy: the one of the report",
        choices=tuple(PRESETS),
    )
    seed: int = _option(42, "of python, numpy, torch and the environment", low=0)
    env: str = _option(
        "embedded", "embedded: no server is needed; carla: on a CARLA server", choices=("embedded", "carla")
    )
    host: str = _option("127.0.0.1", "of the CARLA server")
    port: int = _option(2000, "of the CARLA server", low=1)
    device: str = _option("auto", "auto, cpu, cuda or one of several, such as cuda:1")

    max_timesteps: int = _option(500, "decisions of the agent in all", low=1)
    learning_starts: int = _option(100, "decisions of the warm-up, before the first update", low=0)
    update_every: int = _option(1, "decisions an update", low=1)
    eval_freq: int = _option(0, "decisions between evaluations; 0: one before and one after training", low=0)
    num_eval_episodes: int = _option(5, "episodes in an evaluation", low=1)
    checkpoint_freq: int = _option(0, "decisions between checkpoints; 0: one at the end", low=0)
    resume: Path | None = _option(None, "folder of a run to go on with, with all of its options but max-timesteps")  # noqa: RUF009
    record: Path | None = _option(None, "film of the last episode, a .gif or a .mp4: see record.py")  # noqa: RUF009
    log_dir: Path = _option(_RUNS, "where the run's folder is made")  # noqa: RUF009
    prometheus_port: int = _option(19109, "of the metrics endpoint; 0: no endpoint", low=0)
    bfloat16: bool = _option(False, "run the CNNs in bfloat16, where the processor has it")
    debug: bool = _option(False, "print each episode and write the reward's terms to TensorBoard")

    batch_size: int = _option(64, "transitions in an update", low=1)
    buffer_size: int = _option(50_000, "transitions kept, 35 kB each", low=1)
    learning_rate: float = _option(1e-3, "of both Adam optimizers", low=0)
    cnn_rate: float | None = _option(None, "of their CNNs' parameters; None: the same", low=0)
    anneal: int = _option(0, "decisions at the end over which both learning rates fall to nothing", low=0)
    gamma: float = _option(0.99, "discount a decision", low=0)
    tau: float = _option(0.01, "share of the way that targets follow in an actor update", low=0)
    policy_delay: int = _option(2, "critic updates an actor update", low=1)
    target_noise: float = _option(0.2, "on the target's action", low=0)
    noise_clip: float = _option(0.5, "limit of that noise", low=0)
    exploration_noise: float = _option(0.1, "on the steering driven; three times as much on the pedal", low=0)
    actor_clip: float = _option(1.0, "limit of the actor's gradient norm; 0: no clipping", low=0)
    critic_clip: float = _option(10.0, "limit of the critic's gradient norm; 0: no clipping", low=0)
    action_repeat: int = _option(4, "ticks of a twentieth of a second for which a decision holds", low=1)
    reward_scale: float = _option(0.02, "what rewards are multiplied by before they are learned from", low=0)
    image_weight: float = _option(512**-0.5, "what the CNN's features are multiplied by beside the vector", low=0)
    balanced: bool = _option(True, "bring the vector's numbers to one scale, that of the warm-up")
    action_penalty: float = _option(0.02, "on the mean square of what goes into the policy's tanh", low=0)
    warm_up: str = _option("forward", "forward: drifting along; uniform: chance", choices=("forward", "uniform"))
    last_layer: float | None = _option(
        None, "bound of the policy's last layer at the start; None: torch's own", low=0
    )
    layer_norm: bool = _option(True, "LayerNorm in the CNNs")
    target_cnns: bool = _option(True, "target networks have CNNs of their own")
    shared_features: bool = _option(
        False, "the seed's fault: Q heads judge the policy on the actor's own features"
    )
    wrong_metric: bool = _option(False, "log the seed's sum of norms beside the norm")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, without the usage that argparse prints first: ``--help`` has that."""
        raise OptionError(f"{message[:1].upper()}{message[1:]}: see --help for what is expected.")


def parse(arguments: list[str] | None = None) -> Options:
    """Read and check the command line.

    Raises:
        OptionError: an option cannot be meant.
    """
    parser = _Parser(
        prog="python -m examples.carla_td3.train",
        description="Train a TD3 driving agent and watch its gradients.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for each in fields(Options):
        _add(parser, each)
    given = vars(parser.parse_args(arguments))
    resume = given.get("resume")
    if resume is not None:
        given = {**_config(resume), **{name: given[name] for name in _FREE if name in given}, "resume": resume}
    else:
        preset = given.get("preset", "fixed")
        given = {**PRESETS.get(preset, {}), **given}
    return _checked(given)


# What a run that goes on may change.
_FREE = ("max_timesteps", "anneal", "record", "debug", "prometheus_port", "device")


def _checked(given: dict[str, Any]) -> Options:
    options = Options(**given)
    for each in fields(Options):
        _check(each, getattr(options, each.name))
    _check_machine(options)
    if options.learning_starts >= options.max_timesteps:
        raise OptionError(
            f"--learning-starts got {options.learning_starts} with --max-timesteps {options.max_timesteps}, so "
            "that not one update would be made: choose a shorter warm-up or more steps in all."
        )
    here = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = {"auto": here, "cuda": "cuda:0"}.get(options.device, options.device)
    return replace(options, device=device)


def _add(parser: _Parser, each: Field[Any]) -> None:
    flag, kind = _flag(each.name), str(each.type)
    text = f"{each.metadata['help']} (default: {each.default})"
    if kind == "bool":
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        return
    types = {"int": int, "float": float, "float | None": float, "Path": Path, "Path | None": Path}
    parser.add_argument(flag, type=types.get(kind, str), help=text, metavar=each.name.upper())


def _config(folder: Path) -> dict[str, Any]:
    """The options of an earlier run, from its folder."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kept = {each.name: config[each.name] for each in fields(Options) if each.name != "record"}
        return kept | {"log_dir": Path(config["log_dir"])}
    except (OSError, ValueError, KeyError) as error:
        raise OptionError(
            f"--resume got {str(folder)!r}, which is no folder of a run with a config.json of this program: give "
            "one of runs/TD3_*."
        ) from error


def _check(each: Field[Any], value: Any) -> None:
    flag, low, choices = _flag(each.name), each.metadata["low"], each.metadata["choices"]
    if choices and value not in choices:
        *others, last = map(str, choices)
        raise OptionError(f"{flag} got {value!r}, but expects {', '.join(others)} or {last}: choose one of these.")
    if low is not None and value is not None and not value >= low:
        raise OptionError(f"{flag} got {value}, but expects {low} or more: choose a larger number.")
    if each.name.endswith("port") and value > 65535:
        raise OptionError(f"{flag} got {value}, but ports end at 65535: choose one below.")
    if each.name == "seed" and value >= 2**32:
        raise OptionError(f"--seed got {value}, but numpy expects it below 2**32: choose a smaller one.")


def _check_machine(options: Options) -> None:
    kind, _, number = options.device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise OptionError(f"--device got {options.device!r}, but expects auto, cpu, cuda or cuda:1: choose one.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise OptionError(
            f"--device got {options.device!r}, but torch sees {torch.cuda.device_count()} CUDA devices here: use "
            "--device cpu or auto."
        )
    if options.prometheus_port and not _is_free(options.prometheus_port):
        raise OptionError(
            f"--prometheus-port got {options.prometheus_port}, but that port is in use or not allowed: "
            "choose another, or 0 for no endpoint."
        )


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
