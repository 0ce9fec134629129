"""The ways to watch a loop that are compared: not at all, by gradwatch, and as people write it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch.optim import Optimizer

import gradwatch
from tests.gpu.loop import Loop, held, nothing
from tests.gpu.timing import Step, Way

# Records come in blocks of at most 16 steps; what is read at once needs no such block.
BLOCK, NAIVE_BLOCK, QUICK_BLOCK = 16, 4, 1


@dataclass
class Told:
    """What gradwatch had to say while it was measured: an error or an alert makes its steps others."""

    internal_errors: int = 0
    alerts: set[str] = field(default_factory=set)

    def add(self, watch: gradwatch.Watch) -> None:
        self.internal_errors += watch.health().internal_errors
        self.alerts |= {f"{alert.rule} at {alert.module or alert.optimizer}" for alert in watch.alerts}


def ways(loop: Loop, quick: bool, told: Told) -> dict[str, Way]:
    """All ways to watch this loop, by name."""

    @contextmanager
    def bare() -> Iterator[Step]:
        yield lambda: loop.step(nothing)

    @contextmanager
    def tracked() -> Iterator[Step]:
        with gradwatch.track(loop.optimizers, loop.modules) as watch:
            yield lambda: loop.step(nothing)
        told.add(watch)

    @contextmanager
    def naive() -> Iterator[Step]:
        yield lambda: loop.step(read_each)

    block, naive_block = (QUICK_BLOCK, QUICK_BLOCK) if quick else (BLOCK, NAIVE_BLOCK)
    return {"bare": Way(bare, block), "tracked": Way(tracked, block), "naive": Way(naive, naive_block)}


def read_each(name: str, optimizer: Optimizer) -> None:
    """A norm for each parameter, each read by the host."""
    for parameter in held(optimizer):
        if parameter.grad is not None:
            parameter.grad.norm().item()
