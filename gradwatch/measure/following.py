"""One optimizer, followed from step to step: what is measured when, and which number is the one before."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.measure.meter import Meter
from gradwatch.measure.norms import FloatArray
from gradwatch.measure.rows import Row, SeenClip, record_of
from gradwatch.measure.slots import Holding, ModuleNames, Slots, parameter_ids
from gradwatch.records import StepRecord

__all__ = ["Followed", "Newest"]


class Newest:
    """The norm of each slot before clipping, as last measured, and at which event that was.

    Events are numbered through the life of a tracker, so that "since the last step" is a comparison.
    """

    def __init__(self, slots: Slots, meter: Meter) -> None:
        self._slots = slots
        self._meter = meter
        self.event = 1
        self.norms: FloatArray = np.zeros(len(slots))
        self.measured_at = np.zeros(len(slots), dtype=np.int64)

    def measure(self, selection: tuple[int, ...]) -> None:
        """Measure these slots now: an event of its own."""
        self.next_event()
        norms, present = self._meter.measure(selection)
        places = np.array(selection, dtype=np.intp)
        self.norms[places] = norms
        self.measured_at[places] = np.where(present, self.event, 0)

    def next_event(self) -> int:
        """Number the event that begins."""
        self._grow()
        self.event += 1
        return self.event

    def _grow(self) -> None:
        more = len(self._slots) - len(self.norms)
        if more:
            self.norms = np.append(self.norms, np.zeros(more))
            self.measured_at = np.append(self.measured_at, np.zeros(more, dtype=np.int64))


class Followed:
    """The steps of one optimizer.

    Args:
        name: its name in the report.
        optimizer: the optimizer.
        slots: the tracker's slots.
        names: the report's lines.
        every: measure each n-th step.
    """

    def __init__(self, name: str, optimizer: Optimizer, slots: Slots, names: ModuleNames, every: int) -> None:
        self.name = name
        self.optimizer = optimizer
        self.steps = 0
        self._slots = slots
        self._names = names
        self._every = every
        self._stepped_at = 0
        self._backward_passes = 0
        self._clips: list[SeenClip] = []
        self._row: Row | None = None
        self.holding = Holding(optimizer, slots, names)

    @property
    def due(self) -> bool:
        """Whether the next step is one to measure."""
        return (self.steps + 1) % self._every == 0

    def refresh(self) -> bool:
        """See whether the optimizer holds other parameters than before."""
        if parameter_ids(self.optimizer) == self.holding.signature:
            return False
        self.holding = Holding(self.optimizer, self._slots, self._names)
        return True

    def parameters(self) -> list[tuple[int, Tensor]]:
        """(slot, parameter) of everything that it holds."""
        return [(slot, self._slots.parameters[slot]) for slot in self.holding.slots]

    def holds_any(self, slots: tuple[int, ...]) -> bool:
        """Whether one of the slots is its own."""
        own = self.holding.place_of_slot
        return any(slot in own for slot in slots)

    def backward_ended(self) -> None:
        """A backward pass wrote one of its gradients."""
        self._backward_passes += 1

    def not_yet_measured(self, slots: tuple[int, ...], newest: Newest) -> tuple[int, ...]:
        """Those of the slots that it holds and that no measurement since its last step covers."""
        own = self.holding.place_of_slot
        at = newest.measured_at
        return tuple(slot for slot in slots if slot in own and at[slot] <= self._stepped_at)

    def clip_seen(self, clip: SeenClip) -> None:
        """A clipping call was given some of its gradients."""
        self._clips.append(clip)

    def consume(self, newest: Newest, meter: Meter) -> None:
        """The gradients are final: measure what the optimizer consumes."""
        if not self.due:
            return
        held = self.holding.slot_array
        after, has_after = meter.measure(self.holding.slots)
        covered = newest.measured_at[held] > self._stepped_at
        # Measured, and gone again without a backward pass that wrote it since: zeroed, not consumed before.
        covered &= has_after | (newest.measured_at[held] == newest.measured_at[held].max(initial=0))
        # What nothing has measured since the last step was changed by nothing that was seen.
        before = np.where(covered, newest.norms[held], after)
        self._row = Row(before, covered | has_after, after, has_after, self._backward_passes, tuple(self._clips))

    def stepped(self, event: int) -> StepRecord | None:
        """The step is done; its record, where it was measured."""
        self.steps += 1
        self._stepped_at = event
        row, self._row = self._row, None
        self._clips = []
        self._backward_passes = 0
        return record_of(self.name, self.steps, self.holding, row) if row is not None else None
