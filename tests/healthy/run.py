"""One healthy training, watched with the default rules, and whether it was one: it must learn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

import gradwatch
from gradwatch import Alert, StepRecord
from tests.machine import one_thread

__all__ = ["Episode", "Outcome", "Run", "Workload", "carried_out"]


@dataclass(frozen=True)
class Workload:
    """A training to carry out.

    Attributes:
        name: as it is chosen on the command line.
        steps: optimizer steps to make, of all its optimizers together; a library may round them up.
        train: makes them, and tells of what it reaches.
        goal: what it reaches: a loss that falls or a return that rises.
    """

    name: str
    steps: int
    train: Callable[[Run], None]
    goal: Literal["loss", "return"]


class Run:
    """What a workload is given.

    Attributes:
        steps: optimizer steps to make.
        seed: of everything random.
        reached: the losses of all steps, or the returns of all episodes, in order.
    """

    def __init__(self, steps: int, seed: int, advance: Callable[[int], object]) -> None:
        self.steps = steps
        self.seed = seed
        self.reached: list[float] = []
        self.watch: gradwatch.Watch | None = None
        self._progress = _Progress(advance)

    def track(
        self, optimizers: Optimizer | Mapping[str, Optimizer], modules: nn.Module | Mapping[str, nn.Module]
    ) -> gradwatch.Watch:
        """``gradwatch.track`` as it is by default; the one sink moves the progress bar."""
        self.watch = gradwatch.track(optimizers, modules, sinks=[self._progress])
        return self.watch


class _Progress:
    """A sink that counts."""

    def __init__(self, advance: Callable[[int], object]) -> None:
        self._advance = advance

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        self._advance(len(records))

    def close(self) -> None:
        pass


class Episode(NamedTuple):
    """An alert from beginning to end.

    Attributes:
        alert: as it fired.
        over: the step in which it was resolved; None where it was not.
    """

    alert: Alert
    over: int | None


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        steps: made by each optimizer.
        first: mean of the first tenth of what was reached.
        last: mean of the last tenth.
        episodes: all that was alerted.
        watch: the watch, closed.
    """

    workload: Workload
    seed: int
    steps: Mapping[str, int]
    first: float
    last: float
    episodes: tuple[Episode, ...]
    watch: gradwatch.Watch

    def count(self, severity: str) -> int:
        """Alerts of this severity."""
        return sum(episode.alert.severity == severity for episode in self.episodes)

    @property
    def has_learned(self) -> bool:
        return self.last < self.first if self.workload.goal == "loss" else self.last > self.first


def carried_out(
    workload: Workload, seed: int, steps: int | None = None, advance: Callable[[int], object] = lambda made: None
) -> Outcome:
    """Train, with everything seeded, and see what was alerted."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    run = Run(workload.steps if steps is None else steps, seed, advance)
    with one_thread():
        workload.train(run)
    assert run.watch is not None
    health = run.watch.health()
    assert (health.internal_errors, health.dropped_records) == (0, 0)
    made = {name: record.step for name, record in run.watch.last.items()}
    tenth = max(1, len(run.reached) // 10)
    first, last = (float(np.mean(part)) for part in (run.reached[:tenth], run.reached[-tenth:]))
    return Outcome(workload, seed, made, first, last, tuple(_episodes(run.watch.alerts)), run.watch)


def _episodes(alerts: Sequence[Alert]) -> Iterator[Episode]:
    for place, alert in enumerate(alerts):
        if alert.state == "firing":
            ends = (a.step for a in alerts[place:] if a.state == "resolved" and _of(a) == _of(alert))
            yield Episode(alert, next(ends, None))


def _of(alert: Alert) -> tuple[str, str, str | None]:
    return alert.rule, alert.optimizer, alert.module
