"""The run's folder: its name, its config, and the one checkpoint from which the run goes on bit for bit."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from examples.carla_td3.env import SCENARIOS
from examples.carla_td3.options import OptionError, Options

__all__ = ["Checkpoints", "Kept"]


class Kept(Protocol):
    """What a checkpoint keeps the state of."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


class Checkpoints:
    """The folder of one run, and the newest state in it.

    Args:
        folder: as ``make_folder`` made it, or that of an earlier process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def step(self) -> int:
        """Decisions made when the newest checkpoint was written; 0 where there is none."""
        return max((_step_of(path) for path in self.folder.glob("checkpoint-*.pt")), default=0)

    def save(self, step: int, parts: Mapping[str, Kept], chance: np.random.Generator) -> None:
        """Write the state of everything and of every source of chance, and drop the checkpoint before."""
        state = {
            "step": step,
            "parts": {name: part.state_dict() for name, part in parts.items()},
            "chance": chance.bit_generator.state,
            "python": random.getstate(),
            "numpy": _plain(np.random.get_state(legacy=False)),
            "torch": torch.get_rng_state(),
            # Of the device in use. Asking wakes CUDA up, which a run on the CPU leaves asleep.
            "cuda": torch.cuda.get_rng_state() if _cuda_is_awake() else None,
        }
        path = self.folder / f"checkpoint-{step}.pt"
        # Written beside and renamed: whenever the run is killed, a whole checkpoint is there.
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for older in self.folder.glob("checkpoint-*.pt"):
            if _step_of(older) < step:
                older.unlink()

    def load(self, parts: Mapping[str, Kept], chance: np.random.Generator) -> int:
        """Bring everything to the newest checkpoint's state and return its step; 0 where there is none."""
        step = self.step
        if step:
            state = torch.load(self.folder / f"checkpoint-{step}.pt", weights_only=True, map_location="cpu")
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            chance.bit_generator.state = state["chance"]
            random.setstate(state["python"])
            np.random.set_state(state["numpy"])
            torch.set_rng_state(state["torch"])
            if state["cuda"] is not None and _cuda_is_awake():
                torch.cuda.set_rng_state(state["cuda"])
        return step


def open_folder(options: Options) -> Path:
    """The folder to go on in, or ``<log-dir>/TD3_scenario_{i}_npcs_{n}_{YYYYmmdd-HHMMSS}/`` with ``config.json``.

    Raises:
        OptionError: it cannot be made there, or there is nothing left to do in it.
    """
    if options.resume is not None:
        step = Checkpoints(options.resume).step
        if step >= options.max_timesteps:
            raise OptionError(
                f"--resume got a run of {step} steps with --max-timesteps {options.max_timesteps}: nothing is "
                "left to do, choose more steps in all."
            )
        return options.resume
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"TD3_scenario_{options.scenario}_npcs_{SCENARIOS[options.scenario]}_{stamp}"
    try:
        folder = _first_free(options.log_dir / name)
        config = json.dumps({**asdict(options), "torch": torch.__version__}, indent=2, default=str)
        (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    except OSError as error:
        raise OptionError(
            f"--log-dir got {str(options.log_dir)!r}, but a folder cannot be written there "
            f"({error.strerror or error}): choose another."
        ) from error
    return folder


def _step_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _cuda_is_awake() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _plain(state: Any) -> Any:
    """The same without numpy's arrays, which a checkpoint that runs no code on loading cannot hold."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


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
