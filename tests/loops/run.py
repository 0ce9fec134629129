"""The two runs of a loop, bare and tracked, and where the loop says that the truth is to be taken."""

from __future__ import annotations

import functools
import inspect
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

import gradwatch
from gradwatch.records import Sink
from tests.loops.compare import contradictions
from tests.loops.frozen import Frozen, differences, frozen, not_restored, torch_itself
from tests.loops.truth import Clip, Modules, Norms, Truth

__all__ = ["Clip", "Run", "conformance"]

# Each loop is tracked in each of these ways.
WAYS: dict[str, dict[str, Any]] = {
    "each step": {"every": 1},
    "each third step": {"every": 3},
    "reading at each step": {"every": 1, "reading": True},
}


MOST_SHOWN = 12


class Tracker:
    """One ``gradwatch.track`` of a loop and the truths that its records are held against.

    In the bare run it tracks nothing and notes the same truths.
    """

    def __init__(
        self,
        optimizers: Optimizer | Mapping[str, Optimizer],
        modules: Modules,
        watch: gradwatch.Watch | None,
        memory: gradwatch.sinks.Memory,
    ) -> None:
        self.optimizers = {"optimizer": optimizers} if isinstance(optimizers, Optimizer) else dict(optimizers)
        self.modules = modules
        self.watch = watch
        self.memory = memory
        self.truths: list[Truth] = []
        # Where several threads step at once, only the order of each optimizer's steps is certain.
        self.ordered = True
        self.unread: list[str] = []
        self.began = time.time()
        self._before: dict[str, Norms] = {}
        self._open = False

    def __enter__(self) -> Tracker:
        self._open = True
        if self.watch is not None:
            self.watch.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open = False
        if self.watch is not None:
            self.watch.__exit__(*error)

    def holds(self, name: str) -> bool:
        return self._open and name in self.optimizers

    def now(self, name: str, scale: float) -> Norms:
        return Norms.now(self.optimizers[name], self.modules, scale)

    def before(self, name: str, scale: float) -> None:
        self._before[name] = self.now(name, scale)

    def note(self, name: str, now: Norms, after: Norms, **rest: Any) -> None:
        step = 1 + sum(truth.optimizer == name for truth in self.truths)
        before = self._before.pop(name, now)
        self.truths.append(Truth(name, step, before, after, **rest))

    def read(self) -> None:
        """Every step so far must be in the watch at once."""
        if self.watch is None or not self.ordered:
            return
        read = [(record.optimizer, record.step) for record in self.watch.history]
        expected = [(truth.optimizer, truth.step) for truth in self.truths]
        if read != expected:
            self.unread.append(f"read in the loop after {expected[-1:]}: {read[-1:]}, {len(read)} records")


class Run:
    """What a loop is given: tracks where the loop is to be tracked, and takes the truth where it is told."""

    def __init__(self, tracked: bool, every: int = 1, reading: bool = False) -> None:
        self.trackers: list[Tracker] = []
        self.left: dict[str, Any] = {}
        self._tracked = tracked
        self._every = every
        self._reading = reading
        self._seen: set[Any] = set()

    def track(
        self,
        optimizers: Optimizer | Mapping[str, Optimizer],
        modules: Modules = None,
        sinks: Callable[[], Iterable[Sink]] = tuple,
    ) -> Tracker:
        """In place of ``gradwatch.track``.

        Args:
            optimizers: as there.
            modules: as there.
            sinks: makes further sinks, where the loop is tracked.
        """
        memory = gradwatch.sinks.Memory()
        watch = None
        if self._tracked:
            watch = gradwatch.track(optimizers, modules, every=self._every, sinks=[memory, *sinks()])
        tracker = Tracker(optimizers, modules, watch, memory)
        self.trackers.append(tracker)
        number = len(self.trackers)
        self.left |= {f"optimizers{number}": tracker.optimizers, f"modules{number}": modules}
        return tracker

    def leave(self, **things: Any) -> None:
        """More of what the loop leaves behind, that must be the same with and without tracking."""
        self.left |= things

    def before(self, name: str = "optimizer", *, scale: float = 1.0) -> None:
        """The gradients are complete, and nothing has clipped them: after the last backward or unscale.

        Args:
            name: the optimizer that will consume them.
            scale: what they are still to be divided by.
        """
        for tracker in self._of(name):
            if self._reading:
                tracker.read()
            tracker.before(name, scale)

    def after(
        self,
        name: str = "optimizer",
        *clips: Clip,
        passes: int = 1,
        scale: float = 1.0,
        loss_scale: float | None = None,
    ) -> None:
        """The optimizer consumes the gradients as they are now, and its step will succeed.

        Args:
            name: the optimizer.
            clips: the clip calls since its last step.
            passes: backward passes since its last step that wrote one of its gradients.
            scale: what the gradients are still to be divided by.
            loss_scale: the GradScaler's factor.
        """
        for tracker in self._of(name):
            now = tracker.now(name, scale)
            tracker.note(name, now, now, clips=clips, passes=passes, loss_scale=loss_scale)

    def skipped(
        self, name: str = "optimizer", *clips: Clip, passes: int = 1, loss_scale: float | None = None
    ) -> None:
        """The step that comes will not be applied: nothing is consumed."""
        for tracker in self._of(name):
            now = tracker.now(name, 1.0)
            rest = {"clips": clips, "passes": passes, "loss_scale": loss_scale}
            tracker.note(name, now, now.emptied(), skipped=True, **rest)

    def first(self, key: Any) -> bool:
        """Whether this is asked for the first time with this key: the first evaluation of a closure."""
        seen = key in self._seen
        self._seen.add(key)
        return not seen

    def _of(self, name: str) -> list[Tracker]:
        found = [tracker for tracker in self.trackers if tracker.holds(name)]
        assert found, f"no open tracker has an optimizer {name!r}"
        return found


Loop = Callable[..., None]


def conformance(loop: Loop) -> Callable[..., None]:
    """A loop, ``loop(run, ...)``, as a test that is run in each way; further arguments are pytest's."""

    @pytest.mark.parametrize("way", WAYS)
    @functools.wraps(loop)
    def test(way: str, **arguments: Any) -> None:
        _check(loop, arguments, **WAYS[way])

    del test.__wrapped__
    way = inspect.Parameter("way", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    _run, *others = inspect.signature(loop).parameters.values()
    test.__signature__ = inspect.Signature([way, *others])  # type: ignore[attr-defined]
    return test


def _check(loop: Loop, arguments: Mapping[str, Any], **way: Any) -> None:
    left_bare, truths_bare = _bare(loop, tuple(arguments.items()))
    torch_before = torch_itself()
    run = Run(tracked=True, **way)
    left = _left(run, loop, arguments)
    faults = [f"torch was not restored: {name}" for name in not_restored(torch_before, torch_itself())]
    faults += [f"tracking changed training: {path}" for path in differences(left_bare, left)]
    for tracker, truths in zip(run.trackers, truths_bare, strict=True):
        faults += _of_tracker(tracker, truths, every=way["every"])
    if faults:
        pytest.fail("\n".join(["", *faults[:MOST_SHOWN], f"{len(faults)} faults"]), pytrace=False)


@functools.cache
def _bare(loop: Loop, arguments: tuple[tuple[str, Any], ...]) -> tuple[Frozen, list[list[Truth]]]:
    """What the bare run leaves, and its truths by tracker: the same for each way of tracking."""
    run = Run(tracked=False)
    left = _left(run, loop, dict(arguments))
    return left, [tracker.truths for tracker in run.trackers]


def _left(run: Run, loop: Loop, arguments: Mapping[str, Any]) -> Frozen:
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loop(run, **arguments)
    finally:
        torch.set_num_threads(threads)
    return frozen(**run.left)


def _of_tracker(tracker: Tracker, bare: list[Truth], every: int) -> list[str]:
    assert tracker.watch is not None
    assert tracker.truths, "the loop took no truth"
    faults = list(tracker.unread)
    in_order = _as_they_came if tracker.ordered else _by_optimizer
    truths, records = in_order(tracker.truths), in_order(tracker.watch.history)
    if repr(truths) != repr(in_order(bare)):  # as text: NaN equals itself
        faults.append("the gradients on the way were not those of the bare run")
    errors = tracker.watch.health().internal_errors
    if errors:
        faults.append(f"{errors} internal errors")
    if repr(in_order(tracker.memory.records)) != repr(records):  # as text: NaN equals itself
        faults.append("the sink was not given what the watch has")
    due = [truth for truth in truths if truth.step % every == 0]
    return faults + contradictions(records, due, since=tracker.began)


def _as_they_came(steps: Sequence[Any]) -> list[Any]:
    return list(steps)


def _by_optimizer(steps: Sequence[Any]) -> list[Any]:
    return sorted(steps, key=lambda step: step.optimizer)
