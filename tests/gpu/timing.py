"""Blocks of steps in alternation: what a way of watching adds to a step, on the device's clock and the host's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

Step = Callable[[], None]


@dataclass(frozen=True)
class Way:
    """A way of watching.

    Attributes:
        entered: makes a context in which the step to be timed is to be had.
        block: steps of warming up, and of which a timed run is a multiple. Where costs come once in so many steps,
            as records do, each run has its share of them.
    """

    entered: Callable[[], AbstractContextManager[Step]]
    block: int


@dataclass(frozen=True)
class Timed:
    """Seconds a step: ``device`` from the first event to the last, ``host`` until all was issued."""

    device: float
    host: float


@dataclass(frozen=True)
class Spread:
    """Quartiles."""

    low: float
    median: float
    high: float


def spread(values: list[float]) -> Spread:
    """The quartiles of two or more values."""
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def differences(watched: list[float], bare: list[float]) -> list[float]:
    """What each round has added."""
    return [one - other for one, other in zip(watched, bare, strict=True)]


def time_steps(step: Step, steps: int, device: torch.device) -> Timed:
    """Time so many steps, from an idle device to an idle device."""
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(steps):
            step()
        passed = (time.perf_counter() - began) / steps
        return Timed(passed, passed)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    first.record()
    for _ in range(steps):
        step()
    last.record()
    issued = time.perf_counter() - began
    torch.cuda.synchronize(device)
    return Timed(first.elapsed_time(last) / 1000 / steps, issued / steps)


def alternate(ways: dict[str, Way], device: torch.device, seconds: float, rounds: int) -> dict[str, list[Timed]]:
    """Time each way once a round, in turning order; ``seconds`` is about what all rounds may take."""
    share = seconds / rounds / len(ways)
    lengths = {name: _length(way, device, share) for name, way in ways.items()}
    timed: dict[str, list[Timed]] = {name: [] for name in ways}
    for names in _orders(list(ways), rounds):
        for name in names:
            with warm(ways[name]) as step:
                timed[name].append(time_steps(step, lengths[name], device))
    return timed


@contextmanager
def warm(way: Way) -> Iterator[Step]:
    """A step of this way, warm: what is made once is made, and as many steps wait to be told of as will at the end."""
    with way.entered() as step:
        for _ in range(way.block):
            step()
        yield step


def _length(way: Way, device: torch.device, share: float) -> int:
    """So many whole blocks that these and the one of warming up fill the share; at least one, at most 50."""
    with warm(way) as step:
        block = time_steps(step, way.block, device).device * way.block
    return way.block * max(1, min(50, int(share / block) - 1))


def _orders(names: list[str], rounds: int) -> Iterator[list[str]]:
    """Who goes first changes from round to round, and so does the direction."""
    for turn in range(rounds):
        turned = names[turn % len(names) :] + names[: turn % len(names)]
        yield turned[:: -1 if turn % 2 else 1]
