"""One optimizer, from step to step: which event it takes part in, and what a step of it was."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Hashable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.blocks import NotedClip
from gradwatch.measure import events, kernel
from gradwatch.measure.devices import Note
from gradwatch.measure.erased import ErasedPasses, Wrote
from gradwatch.measure.ledger import Ledger
from gradwatch.measure.lines import Lines
from gradwatch.measure.parameters import Given, OptimizerParameters
from gradwatch.measure.pending import Awaited, PendingStep, SeenClip
from gradwatch.measure.sharding.parts import whole_number
from gradwatch.measure.sharding.shards import Shards
from gradwatch.measure.unheld import Unheld
from gradwatch.measure.weights import Weights

__all__ = ["NO_PASS", "TrackedOptimizer"]

# What torch calls the graph task where no backward pass is running.
NO_PASS = -1

_NONE = None, None, None

# Events are numbered through the life of the process, so that "since the last step" is a comparison.
_clock = itertools.count(1)


class BackwardPass(Protocol):
    """A pass as the tap has seen it.

    Attributes:
        number: of the pass.
        failed: an exception has ended it, as where a batch does not fit into memory: it does not count, and to
            erase what it has written loses no pass.
    """

    number: int
    failed: bool

    def origin(self, group: Any) -> tuple[int, Wrote]:
        """Where it was called, and all that it wrote of the optimizers of a tracker."""


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
        unheld: parameters that no optimizer of the tracker holds, of which its records tell.
        clipped_instead: the optimizer whose gradients a clip call was given for its last step, by mistake.
        deciding: called with each step once it is measured: a fused optimizer's ``found_inf`` may be set there.
    """

    # Losses that write to several optimizers, by where they are called; a loop with ever new ones must not grow.
    MOST_LOSSES = 1024
    # Clip calls of a step, besides one for each parameter: an optimizer that waits while another steps the same
    # parameters is given ever more.
    MOST_CLIPS = 256
    # Passes without a step after which there may be none: more than are summed for one as a rule.
    MANY_PASSES = 64

    def __init__(
        self, name: str, optimizer: Optimizer, lines: Lines, shards: Shards, every: int, alone: bool
    ) -> None:
        self.name = name
        self.optimizer = optimizer
        self.steps = 0
        self.lock = threading.RLock()
        self.unheld = Unheld()
        self.clipped_instead: str | None = None
        self.deciding: Callable[[PendingStep], object] | None = None
        self._lines = lines
        self._shards = shards
        self._every = every
        self.alone = alone
        self._losses: dict[object, int] = {}
        self._written_at = self._waited_since = self._stepped_at = 0
        self._pass_counted = self._pass_stepped_in = NO_PASS
        self._backward_passes = self._passes_before_clip = 0
        self._clips: list[SeenClip] = []
        # Of the norm that a clip call returned last: where it changes, the model may have been converted in place.
        self._norm_dtype: torch.dtype | None = None
        self._loss_scale: float | Note | None = None
        self._step: PendingStep | None = None
        self._erased: ErasedPasses | None = None
        self._stepped_unclipped = False
        self._weights = Weights()
        self.due = every == 1
        self.own = OptimizerParameters(name, optimizer, lines, shards)
        self.ledger = Ledger(self.own, shards)

    def go_on_from(self, steps: int) -> None:
        """Count on from these steps."""
        self.steps = steps
        self.due = (steps + 1) % self._every == 0

    @property
    def steps_unseen(self) -> bool:
        """Whether its weights have changed though passes wrote its gradients and no step of it was seen."""
        return self._weights.noted > self._stepped_at and self._weights.have_changed(self.own.parameters)

    @property
    def never_steps(self) -> bool:
        """Whether many passes wrote its gradients, no step of it was seen, and its weights are as they were."""
        waits = not self._stepped_at and self._backward_passes >= self.MANY_PASSES
        return waits and not self._weights.have_changed(self.own.parameters)

    @property
    def has_changed(self) -> bool:
        """Whether the optimizer holds other parameters than before."""
        return not kernel.holds(self.optimizer.param_groups, self.own.ids)

    def refresh(self) -> None:
        """Take in what it holds now."""
        self._lines.renew()
        own = OptimizerParameters(self.name, self.optimizer, self._lines, self._shards)
        self._clips = [clip.moved(self.own, own) for clip in self._clips]
        for parameter in self.own.parameters:
            if not own.holds(parameter):
                self._shards.forget(parameter)
        # Its columns are others now.
        self._erased = None
        self.own, self.ledger = own, Ledger(own, self._shards, earlier=self.ledger)
        self._weights.note(own.parameters, self._weights.noted)

    def ended(self, columns: frozenset[int], compared: frozenset[int], one: BackwardPass, group: Any) -> bool:
        """A backward pass has ended.

        Args:
            columns: those that it wrote.
            compared: columns without a hook, of which it wrote those that have changed.
            one: the pass.
            group: the tracker, by whose optimizers its origin is asked for.

        Returns:
            Whether it wrote any.
        """
        # What it has consumed within this pass may be gone.
        number, failed = one.number, one.failed
        measuring = self.due and not self._pass_stepped_in == number != NO_PASS
        loss = 0 if self.alone else self._loss_of(one.origin(group))
        written = self.ledger.ended(columns, compared, loss, measuring)
        if not written:
            return False
        if not failed and (number == NO_PASS or number not in (self._pass_counted, self._pass_stepped_in)):
            self._count(number)
        # The loop may have made its optimizer anew: what steps from then on is another one.
        is_first, waits_for_long = not self._written_at, self._backward_passes == self.MANY_PASSES
        self._written_at = next(_clock)
        if is_first or waits_for_long:
            self._weights.note(self.own.parameters, self._written_at)
        if self._erased is not None and not failed:
            site, wrote = one.origin(group)
            self._erased.wrote(site, written, None if self.alone else wrote, self.own.parameters)
        if not self.alone:
            self.ledger.last_pass[list(written)] = number
        return True

    def begins(self) -> None:
        """A pass is about to begin: some of what passes have written since the last step may be erased."""
        columns = self.ledger.begins()
        if columns and self._backward_passes and self._step is None:
            if self._erased is None:
                # Nothing is noted of the passes of a loop that erases none.
                self._erased = ErasedPasses()
            else:
                self._erased.erased(columns, self.own.parameters)

    @property
    def passes(self) -> set[int]:
        """Numbers of the passes that have left what is in its gradients."""
        return set(self.ledger.last_pass.tolist()) - {0}  # numpy: no device is read

    def used_by_another(self, numbers: Collection[int], columns: tuple[int, ...]) -> None:
        """Another optimizer's step has consumed what these passes wrote for it, and these columns themselves."""
        for number in numbers:
            of_it = np.flatnonzero(self.ledger.last_pass == number).tolist()  # numpy: no device is read
            self.ledger.learn(events.shared, tuple(of_it))
        if columns:
            self.ledger.learn(events.elsewhere, columns)

    def _loss_of(self, origin: Hashable) -> int:
        """The loss that a pass is of, as passes are known by where they are called and by what they write."""
        if len(self._losses) >= self.MOST_LOSSES:
            self._losses.clear()
        return self._losses.setdefault(origin, len(self._losses) + 1)

    def _count(self, number: int) -> None:
        """A pass writes, or wrote, one of its gradients."""
        self._pass_counted = number
        self._backward_passes += 1

    def clipped(
        self,
        function: str,
        limit: float,
        norm_type: float | None,
        given: Given,
        norm: Tensor | None,
        nothing: bool,
    ) -> list[SeenClip]:
        """A clip call is done, and returned this norm.

        Args:
            function: name of the torch function.
            limit: its limit, as passed.
            norm_type: the p of its norm; None for clipping by value.
            given: which of its parameters it was given.
            norm: the norm that it returned.
            nothing: it was given no gradient at all, and no parameter that anybody tracks.

        Returns:
            Earlier calls of which nothing came: what they had clipped is gone, and no step has consumed it.
        """
        # A spent generator, or a copy that has no gradients: told to every optimizer that waits for its step.
        if not (given.columns or (nothing and self._backward_passes)):
            return []
        gone: list[SeenClip] = []
        if self._clips and self._passes_before_clip != self._backward_passes:
            gone = self.ledger.gone(self._clips)
            self._clips = [clip for clip in self._clips if clip not in gone]
        self._passes_before_clip = self._backward_passes
        if given.columns:
            self.ledger.note(events.clipped, given.columns)
        if self.due:
            if norm is not None and norm.dtype is not self._norm_dtype:
                self._norm_dtype = norm.dtype
                if self.own.is_retyped:
                    self.refresh()
            whole = norm if type(norm) is Tensor or norm is None else whole_number(norm)
            returned = self.ledger.devices.note(whole)
            on_host = returned if isinstance(returned, float) else None
            noted = NotedClip(function, limit, norm_type, on_host, given.places, given.repeated)
            if len(self._clips) >= self.MOST_CLIPS + len(self.own.parameters):
                del self._clips[0]
            self._clips.append(SeenClip(noted, returned, next(_clock)))
        return gone if self.due else []

    def was_passed_over(self, clip: SeenClip) -> bool:
        """Whether a call came between its last backward pass and its last step, which was not clipped itself."""
        return self._stepped_unclipped and self._waited_since < clip.event < self._stepped_at

    def unscaled(self, scale: Tensor) -> None:
        """A GradScaler has divided its gradients by this scale."""
        self._loss_scale = self.ledger.devices.note(scale)
        self.ledger.unscaled(scale, self.due)

    def consuming(self, backward_pass: int) -> PendingStep | None:
        """The gradients are final: measure what the optimizer consumes; None where this step is not measured."""
        in_pass = backward_pass != NO_PASS
        if in_pass:
            self._pass_stepped_in = backward_pass
        self._waited_since = max(self._written_at, self._stepped_at)
        if not self.due:
            return None
        step = self.ledger.consumed(self.steps + 1, self._backward_passes, self._clips, in_pass)
        if in_pass and backward_pass != self._pass_counted and self.ledger.is_touched:
            self._count(backward_pass)
            step.row = step.row._replace(backward_passes=self._backward_passes)
        # A fused optimizer unscales inside its step and decides there whether to update: its gradients are
        # still scaled, and both numbers may be on the device.
        note = self.ledger.devices.note
        scale = getattr(self.optimizer, "grad_scale", None)
        still_scaled_by = None if scale is None else note(scale)
        if self.deciding is not None:
            self.deciding(step)
        found_inf = getattr(self.optimizer, "found_inf", None)
        found = None if found_inf is None else note(found_inf)
        self._step = self._completed(step, still_scaled_by, found)
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
            self._completed(step, None, None)
        self._finish()
        return step if due else None

    def _completed(
        self, step: PendingStep, still_scaled_by: float | Note | None, found_inf: float | Note | None
    ) -> PendingStep:
        if self.clipped_instead or self._erased is not None or self.unheld.modules or self.unheld.strays:
            passes, columns = (0, ()) if self._erased is None else self._erased.lost
            step.row = step.row._replace(
                clipped_instead=self.clipped_instead,
                lost_passes=passes,
                lost=tuple(self.own.layout.names[column] for column in columns),
                left_out=self.unheld.with_gradients() or None,
            )
        norms = self.ledger.devices.take() if self.ledger.devices.used else None
        numbers = self._loss_scale, still_scaled_by, found_inf
        if norms is not None or numbers != _NONE:
            step.awaited = Awaited(norms, self._clips, *numbers)
        return step

    def _finish(self) -> None:
        self.steps += 1
        self.due = (self.steps + 1) % self._every == 0
        self._stepped_at = next(_clock)
        self._stepped_unclipped = not self._clips
        self.clipped_instead = None
        self._clips = []
        self._backward_passes = self._passes_before_clip = 0
        self._loss_scale = None
        if self._erased is not None and not self._erased.next_step():
            self._erased = None
