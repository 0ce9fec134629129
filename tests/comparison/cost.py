"""What each tool adds to a step of a small net: CPU time of the whole process, threads included."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

STEPS, ROUNDS = 200, 7

# What a tool asks to be called with the step's loss, between the clip call and the step.
EachStep = Callable[[], object]
Open = Callable[[nn.Module, torch.optim.Optimizer, Path], AbstractContextManager[EachStep]]


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 1))


@contextlib.contextmanager
def bare(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
    yield lambda: None


@contextlib.contextmanager
def gradwatch(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
    import gradwatch

    with gradwatch.track(optimizer, model):
        yield lambda: None


@contextlib.contextmanager
def gradwatch_to_a_file(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
    import gradwatch

    with gradwatch.track(optimizer, model, sinks=[gradwatch.sinks.Jsonl(folder / "run.jsonl")]):
        yield lambda: None


@contextlib.contextmanager
def wandb_alone(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
    import wandb

    with wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True)) as run:
        yield lambda: run.log({"loss": 1.0})


@contextlib.contextmanager
def wandb_watch(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
    import wandb

    with wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True)) as run:
        run.watch(model, log="gradients", log_freq=1)
        yield lambda: run.log({"loss": 1.0})


@contextlib.contextmanager
def lightning(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
    from pytorch_lightning.utilities import grad_norm

    yield lambda: grad_norm(model, 2)


@contextlib.contextmanager
def trainscope(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
    from trainscope import TrainScope
    from trainscope.core.config import TrainScopeConfig

    with TrainScope(model, optimizer, config=TrainScopeConfig(run_dir=str(folder / "scope"))) as scope:
        yield lambda: scope.step(1.0)


def pulsegrad_each(k: int) -> Open:
    @contextlib.contextmanager
    def opened(model: nn.Module, optimizer: Any, folder: Path) -> Iterator[EachStep]:
        import pulsegrad

        with pulsegrad.watch(model, optimizer, run_dir=folder / "pulse", k=k):
            yield lambda: None

    return opened


# Name, package, how it is opened, and what it is held against.
TOOLS: list[tuple[str, str, Open, Open]] = [
    ("gradwatch", "gradwatch", gradwatch, bare),
    ("gradwatch, with `Jsonl`", "gradwatch", gradwatch_to_a_file, bare),
    ("`wandb.watch(log_freq=1)`, against `run.log` alone", "wandb", wandb_watch, wandb_alone),
    ("Lightning's `grad_norm`, called at each step", "pytorch_lightning", lightning, bare),
    ("trainscope", "trainscope", trainscope, bare),
    ("PulseGrad, `k=1`", "pulsegrad", pulsegrad_each(1), bare),
    ("PulseGrad, `k=10`, its default", "pulsegrad", pulsegrad_each(10), bare),
]


def added() -> Iterator[tuple[str, str]]:
    """Each tool that is installed, and the median of its rounds: microseconds a step, and the bare step's."""
    for name, package, opened, against in TOOLS:
        if importlib.util.find_spec(package) is None:
            continue
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pairs = [(seconds(opened), seconds(against)) for _ in range(ROUNDS)]
        differences = sorted((with_it - without) * 1e6 for with_it, without in pairs)
        without = statistics.median(pair[1] for pair in pairs) * 1e6
        low, high = differences[1], differences[-2]
        yield name, f"{statistics.median(differences):.0f} ({low:.0f} .. {high:.0f}) | {without:.0f}"


def seconds(opened: Open) -> float:
    """CPU seconds of one step: a training of ``STEPS`` behind a first one as long, after which all is set up."""
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    with tempfile.TemporaryDirectory() as folder, opened(model, optimizer, Path(folder)) as each_step:
        for _ in range(2):
            began = time.process_time()
            for _ in range(STEPS):
                optimizer.zero_grad()
                model(torch.randn(64, 64)).square().mean().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                each_step()
                optimizer.step()
            took = time.process_time() - began
    return took / STEPS
