"""One optimizer, followed from step to step: what is measured when, and which number is the one before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.measure.meter import BoolArray, Meter, Note
from gradwatch.measure.ownership import Consumed, Ownership
from gradwatch.measure.ring import AFTER
from gradwatch.measure.slots import Holding, ModuleNames, Slots, parameter_ids
from gradwatch.measure.steps import SeenClip, Step

__all__ = ["NO_PASS", "Followed", "Marks"]

# What torch calls the graph task where no backward pass is running.
NO_PASS = -1


class Marks:
    """When each slot was last measured before clipping, and last given to a clip call.

    Events are numbered through the life of a tracker, so that "since the last step" is a comparison.
    """

    def __init__(self) -> None:
        self.event = 1
        self.measured_at = np.zeros(0, dtype=np.int64)
        self.clipped_at = np.zeros(0, dtype=np.int64)
        # The backward pass during which it was measured: a step inside a pass trusts that pass alone.
        self.measured_in = np.zeros(0, dtype=np.int64)

    def next_event(self, slots: int) -> int:
        """Number the event that begins, with room for so many slots."""
        more = slots - len(self.measured_at)
        if more:
            self.measured_at, self.clipped_at, self.measured_in = (
                np.append(marks, np.zeros(more, dtype=np.int64))
                for marks in (self.measured_at, self.clipped_at, self.measured_in)
            )
        self.event += 1
        return self.event

    def measured(self, selection: Sequence[int], present: BoolArray, backward_pass: int) -> None:
        """These slots were measured in the present event; those without a gradient are as if they never were."""
        places = np.array(selection, dtype=np.intp)
        self.measured_at[places] = np.where(present, self.event, 0)
        self.measured_in[places] = backward_pass

    def clipped(self, selection: Sequence[int]) -> None:
        """These slots were given to a clip call in the present event."""
        self.clipped_at[np.array(selection, dtype=np.intp)] = self.event

    def forget(self, selection: Iterable[int]) -> None:
        """These slots are another parameter's from now on."""
        places = np.array(tuple(selection), dtype=np.intp)
        self.measured_at[places] = self.clipped_at[places] = 0


class Followed:
    """The steps of one optimizer.

    Args:
        name: its name in the report.
        optimizer: the optimizer.
        slots: the tracker's slots.
        names: the report's lines.
        every: measure each n-th step.

    Attributes:
        steps: steps so far, skipped ones included.
        stepped_at: the event of its last step.
        left_out: by module, the parameters of it that no optimizer of the tracker holds.
        reported_at: the event of the last step that was measured.
        steps_before_scaler: the same when a GradScaler last began to let it step.
        clipped_instead: the optimizer whose gradients a clip call was given for its last step, by mistake.
    """

    # Its numbers besides norms: the loss scale, what gradients are still scaled by, whether the step found an
    # Inf, and the norms that clip calls returned.
    _LOSS_SCALE, _STILL_SCALED_BY, _FOUND_INF, _FIRST_CLIP = range(4)

    def __init__(self, name: str, optimizer: Optimizer, slots: Slots, names: ModuleNames, every: int) -> None:
        self.name = name
        self.optimizer = optimizer
        self.steps = self.steps_before_scaler = 0
        self._slots = slots
        self._names = names
        self._every = every
        self._columns: list[int] = []
        self.stepped_at = self.reported_at = 0
        self._pass_counted = self._pass_stepped_in = NO_PASS
        self._backward_passes = 0
        self._clips: list[SeenClip] = []
        self._free_columns: list[int] = []
        self._passes_before_clip = 0
        self._loss_scale: float | Note | None = None
        self._step: Step | None = None
        self.left_out: Mapping[str, list[tuple[str, Tensor]]] = {}
        self.clipped_instead: str | None = None
        self._stepped_unclipped, self._written_at = False, 0
        self.holding = Holding(optimizer, slots, names)

    @property
    def due(self) -> bool:
        """Whether the next step is one to measure."""
        return (self.steps + 1) % self._every == 0

    def refresh(self) -> bool:
        """See whether the optimizer holds other parameters than before."""
        if parameter_ids(self.optimizer) == self.holding.signature:
            return False
        self._names.renew()
        self.holding = Holding(self.optimizer, self._slots, self._names)
        return True

    def parameters(self) -> list[tuple[int, Tensor]]:
        """(slot, parameter) of everything that it holds."""
        return list(zip(self.holding.slots, self.holding.parameters, strict=True))

    def holds_any(self, slots: Iterable[int]) -> bool:
        """Whether one of the slots is its own."""
        own = self.holding.place_of_slot
        return any(slot in own for slot in slots)

    @property
    def waits_for_step(self) -> bool:
        """Whether a backward pass has written one of its gradients since its last step."""
        return self._backward_passes > 0

    def has_stepped_in(self, backward_pass: int) -> bool:
        """Whether it stepped inside this pass: what the pass wrote is consumed already, and perhaps zeroed."""
        return self._pass_stepped_in == backward_pass != NO_PASS

    def backward_ran(self, backward_pass: int) -> None:
        """A backward pass writes, or wrote, one of its gradients; it may be told twice of each."""
        if backward_pass != self._pass_counted:
            self._pass_counted = backward_pass
            self._backward_passes += 1

    def not_yet_measured(self, slots: Iterable[int], marks: Marks) -> tuple[int, ...]:
        """Those of the slots that it holds and that no measurement since its last step covers."""
        own = self.holding.place_of_slot
        at = marks.measured_at
        return tuple(slot for slot in slots if slot in own and at[slot] <= self.stepped_at)

    def measured_earlier(self, marks: Marks) -> list[int]:
        """What was measured since the last step and given to no clip call since."""
        held = self.holding.slot_array
        at = marks.measured_at[held]
        slots: list[int] = held[(at > self.stepped_at) & (marks.clipped_at[held] < at)].tolist()  # numpy
        return slots

    def clipped_already(self, marks: Marks) -> tuple[int, ...]:
        """What was given to a clip call after it was measured: the norm before is not to be had any more."""
        held = self.holding.slot_array
        at = marks.measured_at[held]
        clipped = (at > self.stepped_at) & (marks.clipped_at[held] > at)
        return tuple(held[clipped].tolist())  # numpy: no device is read

    def clip_seen(self, clip: SeenClip, norm: Tensor | None, meter: Meter, ownership: Ownership) -> list[SeenClip]:
        """A clipping call was given some of its gradients, and returned this norm.

        Returns:
            Earlier calls of which nothing came: what they had clipped is gone, and no step has consumed it.
        """
        gone = []
        if self._passes_before_clip != self._backward_passes:
            self._passes_before_clip = self._backward_passes
            gone = self._forget_clips_of_what_is_gone(ownership)
        clip.column = self._free_columns.pop() if self._free_columns else self._FIRST_CLIP + len(self._clips)
        clip.norm_returned = self._noted(norm, clip.column, meter)
        self._clips.append(clip)
        return gone

    def _forget_clips_of_what_is_gone(self, ownership: Ownership) -> list[SeenClip]:
        """Calls for a step that was never taken: its gradients were zeroed, and others written since."""
        gone = [clip for clip in self._clips if clip.slots and ownership.is_gone(clip.slots, clip.event)]
        self._free_columns += [clip.column for clip in gone]
        self._clips = [clip for clip in self._clips if clip not in gone]
        return gone

    def was_passed_over(self, clip: SeenClip) -> bool:
        """Whether a call came between its last backward pass and its last step, which was not clipped itself."""
        return self._stepped_unclipped and self._written_at < clip.event < self.stepped_at

    def unscaled(self, scale: Tensor, meter: Meter) -> None:
        """A GradScaler has divided its gradients by this scale."""
        self._loss_scale = self._noted(scale, self._LOSS_SCALE, meter)

    def consume(self, marks: Marks, meter: Meter, backward_pass: int, owned: Consumed) -> None:
        """The gradients are final: measure what the optimizer consumes."""
        if backward_pass != NO_PASS:
            self.backward_ran(backward_pass)
            self._pass_stepped_in = backward_pass
        self._written_at = owned.written_at
        if not self.due:
            return
        has_after = meter.measure(AFTER, self.holding.slots)
        covered = self._covered(marks, has_after, backward_pass)
        step = self._step_of(covered, covered | has_after, has_after, meter)
        # A fused optimizer unscales inside its step and decides there whether to update: its gradients are
        # still scaled, and both numbers may be on the device.
        step.still_scaled_by = self._noted(
            getattr(self.optimizer, "grad_scale", None), self._STILL_SCALED_BY, meter
        )
        step.found_inf = self._noted(getattr(self.optimizer, "found_inf", None), self._FOUND_INF, meter)
        step.owned = owned
        step.left_out = self._left_out_with_gradients()
        step.take(meter)
        self._step = step

    def _left_out_with_gradients(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for module, unheld in self.left_out.items():
            names = tuple(name for name, parameter in unheld if parameter.grad is not None)
            if names:
                found[module] = names
        return found

    def nonfinite(self) -> tuple[str, ...]:
        """The parameters whose gradient the present step would consume with NaN or Inf; waits for the device."""
        if self._step is None:
            return ()
        self._step.wait()
        return self._step.nonfinite()

    def leave_out(self) -> None:
        """The present step is not taken."""
        if self._step is not None:
            self._step.skipped = True

    def stepped(self, marks: Marks) -> Step | None:
        """The step is done; what was measured of it, where it was."""
        step, self._step = self._step, None
        self._finish(marks)
        return step

    def skipped(self, marks: Marks, meter: Meter) -> Step | None:
        """The step was not taken: what was measured before it."""
        step = None
        if self.due:
            has_gradient = meter.present(self.holding.slots)
            covered = self._covered(marks, has_gradient, NO_PASS)
            step = self._step_of(covered, covered, has_gradient, meter)
            step.skipped = True
            step.take(meter)
        self._finish(marks)
        return step

    def _covered(self, marks: Marks, has_gradient: BoolArray, backward_pass: int) -> BoolArray:
        """Which of its gradients were measured before clipping, since its last step."""
        held = self.holding.slot_array
        at = marks.measured_at[held]
        covered: BoolArray = at > self.stepped_at
        if backward_pass != NO_PASS:
            covered &= marks.measured_in[held] == backward_pass
        # Measured, and gone again before a later measurement: zeroed between two passes, not at the step.
        covered &= has_gradient | (at == at.max(initial=0))
        return covered

    def _step_of(self, covered: BoolArray, had_before: BoolArray, has_after: BoolArray, meter: Meter) -> Step:
        return Step(
            optimizer=self.name,
            number=self.steps + 1,
            time=time.time(),
            holding=self.holding,
            covered=covered,
            had_before=had_before,
            has_after=has_after,
            backward_passes=self._backward_passes,
            clips=tuple(self._clips),
            loss_scale=self._loss_scale,
            clipped_instead=self.clipped_instead,
        )

    def _noted(self, number: object, which: int, meter: Meter) -> float | Note | None:
        """A number that torch has computed, by way of a column of its own where it is on a device."""
        if not isinstance(number, Tensor):
            return None
        while len(self._columns) <= which:
            self._columns.append(meter.new_column())
        return meter.note(number, self._columns[which])

    def _finish(self, marks: Marks) -> None:
        if self.due:
            self.reported_at = marks.event
        self.steps += 1
        self.stepped_at = marks.event
        self._stepped_unclipped = not self._clips
        self.clipped_instead = None
        self._clips, self._free_columns = [], []
        self._backward_passes = self._passes_before_clip = 0
        self._loss_scale = None
