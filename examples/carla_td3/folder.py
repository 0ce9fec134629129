"""The run's folder: its name, its config, its checkpoints."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from examples.carla_td3.agent import TD3
from examples.carla_td3.env import SCENARIOS
from examples.carla_td3.options import OptionError, Options
from examples.carla_td3.presets import PRESETS

__all__ = ["load_checkpoint", "make_folder", "save_checkpoint"]


def make_folder(options: Options) -> Path:
    """``<log-dir>/TD3_scenario_{i}_npcs_{n}_{YYYYmmdd-HHMMSS}/`` with ``config.json``.

    Raises:
        OptionError: it cannot be made there.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"TD3_scenario_{options.scenario}_npcs_{SCENARIOS[options.scenario]}_{stamp}"
    try:
        folder = _first_free(options.log_dir / name)
        config = {**asdict(options), "preset": asdict(PRESETS[options.preset])}
        (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise OptionError(
            f"--log-dir got {str(options.log_dir)!r}, but a folder cannot be written there "
            f"({error.strerror or error}): choose another."
        ) from error
    return folder


def save_checkpoint(folder: Path, agent: TD3, step: int) -> Path:
    """Write the agent and the state of torch's and Python's random numbers; the replay buffer is left out."""
    path = folder / f"checkpoint-{step}.pt"
    state = {"step": step, "agent": agent.state_dict(), "torch_random": torch.get_rng_state()}
    # Written beside and renamed: a run that is killed here leaves no half of a checkpoint.
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
    return path


def load_checkpoint(options: Options, agent: TD3) -> int:
    """Restore the agent from ``--resume`` and return the step at which it was saved; 0 without ``--resume``.

    Raises:
        OptionError: the file is no checkpoint, of the other preset, or beyond ``--max-timesteps``.
    """
    if options.resume is None:
        return 0
    state = _read(options.resume)
    saved, step = state["agent"]["preset"], int(state["step"])
    if saved != options.preset:
        raise OptionError(
            f"--resume got a checkpoint of preset {saved!r}, not {options.preset!r}: use --preset {saved}."
        )
    if step + options.learning_starts >= options.max_timesteps:
        raise OptionError(
            f"--resume got a checkpoint of step {step}, but --max-timesteps {options.max_timesteps} leaves no "
            f"update after {options.learning_starts} steps that refill the buffer: choose more steps in all."
        )
    agent.load_state_dict(state["agent"])
    torch.set_rng_state(state["torch_random"])
    return step


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        state["agent"]["preset"], state["step"], state["torch_random"]
    except Exception as error:  # torch raises whatever pickle and zip do
        raise OptionError(
            f"--resume got {str(path)!r}, which is no checkpoint of this program: give a checkpoint-*.pt of a run."
        ) from error
    return state


def _first_free(folder: Path) -> Path:
    """The folder, made; with ``-2``, ``-3``, ... where a run of the same second has it already."""
    for tail in ("", *(f"-{n}" for n in range(2, 100))):
        candidate = folder.with_name(folder.name + tail)
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            if candidate.is_dir():
                continue
            raise
        return candidate
    raise FileExistsError(f"{folder} and 98 more exist")
