"""One run of a loop of the zoo, bare or tracked, and what the loop itself has found out by other means."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

import gradwatch
from gradwatch.diagnose import Diagnosis
from tests.loops.frozen import Frozen, frozen
from tests.machine import one_thread
from tests.saved import saved

__all__ = ["Run", "carried_out"]

SAVED = 12
"""Iterations in which the modules are saved: by then gradwatch has looked by itself at nearly all that are ill."""


class Run:
    """What a loop is given.

    Attributes:
        watch: of the tracked run; None in a bare one.
        step: number of the iteration that runs, from 1.
        seen: rule -> step -> numbers that the loop measured there, for the steps in which it saw its fault; under
            the rule None what holds for all rules that it does not name.
        traits: what makes a healthy loop hard to tell, and whether it has been so.
        diagnosed: what each ``watch.diagnose()`` of the loop found.
        ill: rule -> paths of all modules that the loop itself sees ill, of which alerts are right.
        saved: what the modules were saved as at the end of each iteration, where that is asked for.
    """

    def __init__(self, tracked: bool, saving: bool = False) -> None:
        self.watch: gradwatch.Watch | None = None
        self.step = 0
        self.seen: dict[str | None, dict[int, dict[str, float]]] = {}
        self.traits: dict[str, bool] = {}
        self.diagnosed: list[Diagnosis] = []
        self.ill: dict[str, set[str]] = {}
        self.kept: dict[str, Any] = {}
        self.saved: list[dict[str, bytes | str]] = []
        self._tracked = tracked
        self._saving = saving

    def track(
        self,
        optimizers: Optimizer | Mapping[str, Optimizer],
        modules: nn.Module | Mapping[str, nn.Module] | None = None,
        every: int = 1,
    ) -> AbstractContextManager[object]:
        """In place of ``gradwatch.track``, with its default rules."""
        self.keep(optimizers=optimizers, modules=modules)
        if not self._tracked:
            return nullcontext()
        self.watch = gradwatch.track(optimizers, modules, every=every)
        return self.watch

    def steps(self, count: int) -> Iterator[int]:
        """Numbers the iterations from 1; where the modules are saved, no more than `SAVED` of them."""
        last = min(count, SAVED) if self._saving else count
        for self.step in range(1, last + 1):
            with self._look() if self._saving else nullcontext():
                yield self.step
                if self._saving:
                    self.saved.append(saved(self.kept))

    def _look(self) -> AbstractContextManager[object]:
        """In every second iteration, and in the others where gradwatch looks by itself."""
        return self.watch.diagnose() if self.watch is not None and self.step % 2 else nullcontext()

    def fault(
        self, present: bool, /, *, rule: str | None = None, step: int | None = None, **numbers: float
    ) -> None:
        """Whether the fault is there in this iteration, found out without gradwatch; told before the step.

        Args:
            present: whether it is.
            rule: what is visible, where the rules see their part of the fault at different times.
            step: number of the optimizer's step, where that is not the iteration's.
            numbers: measured here, by the names that they must have in the evidence.
        """
        seen = self.seen.setdefault(rule, {})
        if present:
            seen[self.step if step is None else step] = numbers

    def seen_by(self, rule: str) -> dict[int, dict[str, float]]:
        """The steps in which the fault was there for a rule to see, with what was measured in them."""
        return self.seen.get(rule, self.seen.get(None, {}))

    def trait(self, name: str, present: bool) -> None:
        """What makes a healthy loop look ill; it must have been so at least once."""
        self.traits[name] = self.traits.get(name, False) or bool(present)

    def diagnose(self) -> AbstractContextManager[object]:
        """``watch.diagnose()`` in the tracked run."""
        return nullcontext() if self.watch is None else self._diagnosed(self.watch)

    @contextmanager
    def _diagnosed(self, watch: gradwatch.Watch) -> Iterator[None]:
        with watch.diagnose() as diagnosis:
            yield
        self.diagnosed.append(diagnosis)

    def keep(self, **things: Any) -> None:
        """More of what training leaves behind, that must be the same with and without tracking."""
        self.kept |= things


def carried_out(loop: Callable[[Run], None], tracked: bool, saving: bool = False) -> tuple[Run, Frozen]:
    """The loop with everything seeded, and all that it left behind.

    Args:
        loop: trains.
        tracked: by gradwatch.
        saving: the modules are saved in every iteration, and in every second one causes are looked for.
    """
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    # A module is saved with the numbers of its hooks, which torch counts through.
    RemovableHandle.next_id = 0
    run = Run(tracked, saving)
    with one_thread(), _quiet():
        loop(run)
    return run, frozen(**run.kept)


@contextmanager
def _quiet() -> Iterator[None]:
    """Alerts also go to the log: under pytest that is shown with a failure, in a table it is noise."""
    log = logging.getLogger("gradwatch")
    handler, propagate = logging.NullHandler(), log.propagate
    log.addHandler(handler)
    log.propagate = "pytest" in sys.modules and propagate
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
