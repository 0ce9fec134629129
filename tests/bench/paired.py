"""What tracking adds to a loop: bare and tracked in alternation, each time a fresh training of the same numbers.

Each tracked block stands between two bare ones and is divided by their mean, so that a machine that drifts meets both
alike. CPU time is that of the process, all threads: what is moved to a thread is counted, and what other jobs take of
the machine is not. Entering and leaving ``track`` is inside the time, so what is put off is paid for.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

import gradwatch
from tests.bench.loops import SEED, Loop

__all__ = ["Block", "Cost", "Ratio", "busy_share", "cost_of"]

RESAMPLES = 2000


@dataclass(frozen=True)
class Block:
    """One training: seconds of CPU and of wall, the steps recorded, the alerts, and the parameters it ended with."""

    cpu: float
    wall: float
    steps: int
    alerts: int
    trained: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """The median of tracked / bare over all pairs, and the 95 % interval of that median."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What tracking costs in one loop.

    Attributes:
        cpu: CPU time tracked / bare.
        wall: wall time tracked / bare.
        steps: optimizer steps of one training.
        bare_us: CPU time of a bare training for each of these steps, median, in microseconds.
        added_us: what tracking adds to it, median of the pairs, in microseconds.
        alerts: alerts of one training; each may look for its cause, which is part of the cost.
        rounds: pairs.
    """

    cpu: Ratio
    wall: Ratio
    steps: int
    bare_us: float
    added_us: float
    alerts: int
    rounds: int


def cost_of(make: Callable[[], Loop], rounds: int) -> Cost:
    """Measure one loop.

    Raises:
        AssertionError: a tracked training recorded nothing or ended elsewhere than a bare one: its time counts for nothing.
    """
    for tracked in (False, True):
        _block(make, tracked)  # imports and caches
    bare, tracked = [_block(make, False)], []
    for _ in range(rounds):
        tracked.append(_block(make, True))
        bare.append(_block(make, False))
    assert all(block.steps for block in tracked), "nothing was recorded"
    assert len({block.trained for block in bare + tracked}) == 1, "tracking changed the training"
    steps = tracked[0].steps
    cpu = _pairs([block.cpu for block in bare], [block.cpu for block in tracked])
    wall = _pairs([block.wall for block in bare], [block.wall for block in tracked])
    return Cost(
        cpu=_ratio(cpu),
        wall=_ratio(wall),
        steps=steps,
        bare_us=1e6 * statistics.median(around for around, _ in cpu) / steps,
        added_us=1e6 * statistics.median(block - around for around, block in cpu) / steps,
        alerts=tracked[0].alerts,
        rounds=rounds,
    )


def _block(make: Callable[[], Loop], tracked: bool) -> Block:
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' advice on the machine
        loop = make()
        gc.collect()
        watch = gradwatch.track(loop.optimizers, loop.modules) if tracked else None
        around: AbstractContextManager[object] = nullcontext() if watch is None else watch
        cpu, wall = time.process_time(), time.perf_counter()
        with around:
            loop.train()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    trained = tuple(p.detach().double().sum().item() for p in loop.parameters())
    if watch is None:
        return Block(cpu, wall, 0, 0, trained)
    return Block(cpu, wall, sum(record.step for record in watch.last.values()), len(watch.alerts), trained)


def _pairs(bare: Sequence[float], tracked: Sequence[float]) -> list[tuple[float, float]]:
    """For each tracked block the mean of the bare ones before and behind it, and itself."""
    return [
        ((before + behind) / 2, block) for block, (before, behind) in zip(tracked, pairwise(bare), strict=True)
    ]


def _ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    ratios = [tracked / bare for bare, tracked in pairs]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return Ratio(statistics.median(ratios), medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)])


def busy_share() -> Callable[[], tuple[float, float] | None]:
    """From now on: the share of the machine's time that was busy, and that a hypervisor stole; None but on Linux."""
    began = _ticks()

    def so_far() -> tuple[float, float] | None:
        if began is None:
            return None
        total, idle, stolen = (now - then for now, then in zip(_ticks(), began, strict=True))
        return 1 - idle / max(total, 1), stolen / max(total, 1)

    return so_far


def _ticks() -> tuple[int, int, int] | None:
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, idle, iowait, irq, softirq, stolen = map(int, line.split()[1:9])
    return user + nice + system + idle + iowait + irq + softirq + stolen, idle + iowait, stolen
