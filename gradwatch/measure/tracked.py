"""One optimizer, from step to step: which event it takes part in, and what a step of it was."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Hashable, Mapping, Sequence
from types import FrameType

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.blocks import NotedClip
from gradwatch.measure.ledger import Ledger
from gradwatch.measure.lines import Lines
from gradwatch.measure.parameters import OptimizerParameters, parameter_ids
from gradwatch.measure.pending import PendingStep, SeenClip
from gradwatch.measure.sharding.parts import whole_number
from gradwatch.measure.sharding.shards import Shards
from gradwatch.records import OUTSIDE

__all__ = ["NO_PASS", "TrackedOptimizer"]

# What torch calls the graph task where no backward pass is running.
NO_PASS = -1

# Events are numbered through the life of the process, so that "since the last step" is a comparison.
_clock = itertools.count(1)


class TrackedOptimizer:
    """The steps of one optimizer.

    Args:
        name: its name in the report.
        optimizer: the optimizer.
        lines: the report's lines.
        shards: how its parameters lie on the ranks.
        every: measure each n-th step.
        alone: no other optimizer is tracked beside it, so that nobody else uses what its passes write.

    Attributes:
        alone: the same.
        steps: steps so far, skipped ones included.
        due: whether the next step is one to measure.
        own: what it holds.
        lock: held during an event: an optimizer's parameters may be written from several threads.
        left_out: by module, the parameters of it that no optimizer of the tracker holds.
        strays: parameters that no module holds either: a name, the tensor, how often it had been written to.
        clipped_instead: the optimizer whose gradients a clip call was given for its last step, by mistake.
        passes: numbers of the passes that have written what its parameters hold now.
    """

    # Losses that write to several optimizers, by where they are called; a loop with ever new ones must not grow.
    MOST_LOSSES = 1024
    MOST_PASSES = 16

    def __init__(
        self, name: str, optimizer: Optimizer, lines: Lines, shards: Shards, every: int, alone: bool
    ) -> None:
        self.name = name
        self.optimizer = optimizer
        self.steps = self._steps_before_scaler = 0
        self.lock = threading.RLock()
        self.left_out: Mapping[str, list[tuple[str, Tensor]]] = {}
        self.strays: tuple[tuple[str, Tensor, int], ...] = ()
        self.clipped_instead: str | None = None
        self.passes: dict[int, None] = {}
        self._lines = lines
        self._shards = shards
        self._every = every
        self.alone = alone
        self._losses: dict[object, int] = {}
        self._written_at = self._waited_since = self._stepped_at = 0
        self._pass_counted = self._pass_stepped_in = NO_PASS
        self._backward_passes = self._passes_before_clip = 0
        self._clips: list[SeenClip] = []
        self._loss_scale: object = None
        self._step: PendingStep | None = None
        self._stepped_unclipped = False
        self.due = every == 1
        self.own = OptimizerParameters(name, optimizer, lines, shards)
        self.ledger = Ledger(self.own, shards)

    def go_on_from(self, steps: int) -> None:
        """Count on from these steps."""
        self.steps = steps
        self.due = (steps + 1) % self._every == 0

    def refresh(self) -> bool:
        """See whether the optimizer holds other parameters than before."""
        if parameter_ids(self.optimizer) == self.own.ids:
            return False
        self._lines.renew()
        own = OptimizerParameters(self.name, self.optimizer, self._lines, self._shards)
        self._clips = [clip.moved(self.own, own) for clip in self._clips]
        for parameter in self.own.parameters:
            if not own.holds(parameter):
                self._shards.forget(parameter)
        self.own, self.ledger = own, Ledger(own, self._shards, earlier=self.ledger)
        return True

    def ended(self, columns: tuple[int, ...], compared: list[int], number: int, wrote: Hashable) -> bool:
        """A backward pass has ended.

        Args:
            columns: those that it wrote.
            compared: columns without a hook, of which it wrote those that have changed.
            number: of the pass.
            wrote: all that it wrote, also of other optimizers.

        Returns:
            Whether it wrote any.
        """
        # What it has consumed within this pass may be gone.
        measuring = self.due and not self._pass_stepped_in == number != NO_PASS
        loss = 0 if self.alone else self._loss_of(wrote)
        if not self.ledger.ended(columns, compared, loss, measuring):
            return False
        self._count(number)
        self._written_at = next(_clock)
        if not self.alone:
            self._note_pass(columns, number)
        return True

    def holds_of(self, number: int) -> bool:
        """Whether any of its gradients is what this pass has left; it is forgotten where none is."""
        if (self.ledger.last_pass == number).any():
            return True
        self.passes.pop(number, None)
        return False

    def used_by_another(self, numbers: Sequence[int], columns: tuple[int, ...]) -> None:
        """Another optimizer's step has consumed what these passes wrote for it, and these columns themselves."""
        for number in numbers:
            self.ledger.shared(number)
        if columns:
            self.ledger.elsewhere(columns)

    def send(self) -> None:
        """Start the copy to the host of all that devices have."""
        self.ledger.send()

    def _loss_of(self, wrote: Hashable) -> int:
        """The loss that a pass is of, as passes are known by where they are called and by what they write."""
        if len(self._losses) >= self.MOST_LOSSES:
            self._losses.clear()
        return self._losses.setdefault((_call_site(), wrote), len(self._losses) + 1)

    def _note_pass(self, columns: tuple[int, ...], number: int) -> None:
        self.ledger.last_pass[list(columns)] = number
        self.passes[number] = None
        if len(self.passes) > self.MOST_PASSES:
            self.passes = dict.fromkeys(np.unique(self.ledger.last_pass).tolist())  # numpy: no device is read
            self.passes.pop(0, None)

    def _count(self, number: int) -> None:
        """A pass writes, or wrote, one of its gradients; it may be told twice of each."""
        if number != self._pass_counted or number == NO_PASS:
            self._pass_counted = number
            self._backward_passes += 1

    def clipping(self, ids: tuple[int, ...], in_pass: bool) -> None:
        """A clip call that was given the parameters of these ids is about to change gradients."""
        given = self.own.given(ids)
        if given.columns:
            self.ledger.clipping(given.columns, self.due, in_pass)

    def clipped(
        self,
        function: str,
        limit: float,
        norm_type: float | None,
        ids: tuple[int, ...],
        norm: Tensor | None,
        nothing: bool,
    ) -> list[SeenClip]:
        """It is done, and returned this norm.

        Args:
            function: name of the torch function.
            limit: its limit, as passed.
            norm_type: the p of its norm; None for clipping by value.
            ids: those of the parameters that it was given.
            norm: the norm that it returned.
            nothing: it was given no gradient at all, and no parameter that anybody tracks.

        Returns:
            Earlier calls of which nothing came: what they had clipped is gone, and no step has consumed it.
        """
        given = self.own.given(ids)
        # A spent generator, or a copy that has no gradients: told to every optimizer that waits for its step.
        if not (given.columns or (nothing and self._backward_passes)):
            return []
        gone = self._forget_clips_of_what_is_gone()
        if given.columns:
            self.ledger.clipped(given.columns)
        if not self.due:
            return []
        returned = None if norm is None else self.ledger.note(whole_number(norm))
        on_host = returned if isinstance(returned, float) else None
        noted = NotedClip(function, limit, norm_type, on_host, given.places, given.repeated)
        self._clips.append(SeenClip(noted, returned, given.columns, next(_clock)))
        return gone

    def _forget_clips_of_what_is_gone(self) -> list[SeenClip]:
        if not self._clips or self._passes_before_clip == self._backward_passes:
            self._passes_before_clip = self._backward_passes
            return []
        self._passes_before_clip = self._backward_passes
        gone = self.ledger.gone(self._clips)
        self._clips = [clip for clip in self._clips if clip not in gone]
        return gone

    def was_passed_over(self, clip: SeenClip) -> bool:
        """Whether a call came between its last backward pass and its last step, which was not clipped itself."""
        return self._stepped_unclipped and self._waited_since < clip.event < self._stepped_at

    def unscaled(self, scale: Tensor) -> None:
        """A GradScaler has divided its gradients by this scale."""
        self._loss_scale = self.ledger.note(scale)
        self.ledger.unscaled(scale, self.due)

    def scaler_begins(self) -> None:
        """A GradScaler lets it step, or leaves it out."""
        self._steps_before_scaler = self.steps

    @property
    def was_left_out(self) -> bool:
        """Whether the GradScaler has left it out."""
        return self.steps == self._steps_before_scaler

    def consuming(self, backward_pass: int) -> PendingStep | None:
        """The gradients are final: measure what the optimizer consumes; None where this step is not measured."""
        if backward_pass != NO_PASS:
            self._count(backward_pass)
            self._pass_stepped_in = backward_pass
        self._waited_since = max(self._written_at, self._stepped_at)
        if not self.due:
            return None
        step = self.ledger.consumed(self.steps + 1, self._backward_passes, self._clips, backward_pass != NO_PASS)
        # A fused optimizer unscales inside its step and decides there whether to update: its gradients are
        # still scaled, and both numbers may be on the device.
        step.still_scaled_by = self.ledger.note(getattr(self.optimizer, "grad_scale", None))
        step.found_inf = self.ledger.note(getattr(self.optimizer, "found_inf", None))
        self._step = self._completed(step)
        return step

    def stepped(self) -> PendingStep | None:
        """The step is done; what was measured of it."""
        step, self._step = self._step, None
        self.ledger.left(self.due)
        self._finish()
        return step

    def skipped(self) -> PendingStep | None:
        """The step was not taken: what was measured before it."""
        step = self.ledger.skipped(self.steps + 1, self._backward_passes, self._clips, self.due)
        due = self.due
        if due:
            self._completed(step)
        self._finish()
        return step if due else None

    def _completed(self, step: PendingStep) -> PendingStep:
        step.loss_scale = self._loss_scale  # type: ignore[assignment]
        step.clipped_instead = self.clipped_instead
        if self.left_out or self.strays:
            step.left_out = self._left_out_with_gradients() or None
        return self.ledger.take(step)

    def _left_out_with_gradients(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for module, unheld in self.left_out.items():
            names = tuple(name for name, parameter in unheld if parameter.grad is not None)
            if names:
                found[module] = names
        if self.strays:
            # Whoever trains one writes to it.
            self.strays = tuple(stray for stray in self.strays if stray[1]._version == stray[2])
            alive = tuple(name for name, parameter, _ in self.strays if parameter.grad is not None)
            found |= {OUTSIDE: alive} if alive else {}
        return found

    def _finish(self) -> None:
        self.steps += 1
        self.due = (self.steps + 1) % self._every == 0
        self._stepped_at = next(_clock)
        self._stepped_unclipped = not self._clips
        self.clipped_instead = None
        self._clips = []
        self._backward_passes = self._passes_before_clip = 0
        self._loss_scale = None


def _call_site(deepest: int = 32) -> int:
    """Where in the program this is called from."""
    places: list[tuple[int, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(places) < deepest:
        places.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return hash(tuple(places))
