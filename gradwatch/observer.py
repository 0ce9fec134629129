"""From the events of a training loop to the steps of its optimizers: the taps and the measuring, put together.

The observer hands each event to the optimizers that it is of. It knows nothing of verdicts and sinks: steps go to
one function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import get_ident
from typing import Protocol

import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.blocks import Steps
from gradwatch.measure import events
from gradwatch.measure.lines import Lines
from gradwatch.measure.parameters import Given, parameters_of
from gradwatch.measure.pending import PendingStep, SeenClip
from gradwatch.measure.queue import StepQueue
from gradwatch.measure.sharding.meeting import peers_for
from gradwatch.measure.sharding.replicas import Replicas, replicas_of
from gradwatch.measure.sharding.shards import Shards
from gradwatch.measure.sharding.shares import size_for
from gradwatch.measure.tracked import TrackedOptimizer
from gradwatch.reporting import Reporting
from gradwatch.shield import ErrorShield
from gradwatch.taps.backwards import NO_PASS, Pass, activity, current_pass, is_alone, passes
from gradwatch.taps.clips import ClipEvent, clips
from gradwatch.taps.gradient_hooks import GradientHooks
from gradwatch.taps.scaler import scalers
from gradwatch.taps.steps import LEAVE_OUT, StepTap

__all__ = ["Listener", "Observer"]


class Listener(Protocol):
    """Who is told of steps, in the training thread or in that of whoever reads."""

    def report(self, steps: Steps) -> object:
        """Steps are measured; oldest first."""

    @property
    def refused(self) -> Callable[[TrackedOptimizer, PendingStep], object] | None:
        """Says of a step that is about to be taken what becomes of it; None where all are let be.

        It gives an error to be raised in the place of the step, ``"skip"``, or None to let it be.
        """

    def stepping(self, optimizer: str) -> object:
        """An optimizer is about to step."""

    def stepped(self, optimizer: str, step: PendingStep | None, unusual: bool) -> object:
        """It has, and this is the step, None where it was not measured; an unusual one is told of at once."""

    @property
    def starting_from(self) -> Callable[[Sequence[object], Sequence[object], bool], Callable[[], None] | None]:
        """Takes what the autograd engine starts from; what is returned is called when it is over."""


class Observer:
    """Sees every step of some optimizers and reports each once its numbers are there.

    Args:
        optimizers: by name.
        lines: the report's lines.
        every: measure each n-th step of each optimizer.
        terms: what other ranks that have parts of the same parameters have to track with, besides.
        listener: who is told.
    """

    def __init__(
        self, optimizers: Mapping[str, Optimizer], lines: Lines, every: int, terms: str, listener: Listener
    ) -> None:
        self.shield = ErrorShield()
        self.shards = Shards([p for optimizer in optimizers.values() for p in parameters_of(optimizer)])
        self._lines = lines
        self._terms = f"{every} {terms}"
        self.listener = listener
        alone = len(optimizers) == 1
        self.tracked = {
            name: TrackedOptimizer(name, optimizer, lines, self.shards, every, alone)
            for name, optimizer in optimizers.items()
        }
        self.reporting = Reporting(listener.report, self._send)
        self._followers = [_Follower(self, tracked) for tracked in self.tracked.values()]
        around = self.shield.around
        self.clipping, self.clipped = around(self._clipping), around(self._clipped)
        self.starting_from = around(listener.starting_from)
        self.unscaled, self.stepping, self.stepped = (
            around(self._unscaled),
            around(self._scaler_begins),
            around(self._scaler_is_done),
        )
        self._finish = around(self.reporting.finish)
        self._replicas: Replicas | None = None
        self._steps_before_scaler: dict[str, int] = {}

    def start(self, asks: bool) -> None:
        """Meet the other ranks where parameters are in parts, and hook everything.

        Args:
            asks: ranks will ask each other something at each step.
        """
        sizes = {name: size_for(len(tracked.own.row.sharded)) for name, tracked in self.tracked.items()}
        self.reporting.start(peers_for(self.shards, sizes, StepQueue.BLOCK, self._terms, asks))
        if dist.is_available() and dist.is_initialized():
            held = {name: tracked.own.parameters for name, tracked in self.tracked.items()}
            self._replicas = self.shield.around(replicas_of)(held)
        if self._replicas is not None:
            self.reporting.compare = self.shield.around(self._replicas.compare)
        self._share_out_what_is_left_out()
        for follower in self._followers:
            follower.start()
        passes.listen(self)
        self._listen_to_clips()
        scalers.listen(self, [id(tracked.optimizer) for tracked in self.tracked.values()])

    def stop(self, normally: bool) -> None:
        """Remove every hook, and report what is left.

        Args:
            normally: the loop ended by itself: other ranks may be waited for.
        """
        scalers.stop_listening(self)
        clips.stop_listening(self)
        passes.stop_listening(self)
        for follower in self._followers:
            follower.stop()
        self._finish(normally)
        if self._replicas is not None:
            self.shield.around(self._replicas.close)()

    def steps(self) -> dict[str, int]:
        """Steps so far by optimizer."""
        return {name: tracked.steps for name, tracked in self.tracked.items()}

    def go_on_from(self, steps: Mapping[str, int]) -> None:
        """Count on from these steps."""
        for name, tracked in self.tracked.items():
            tracked.go_on_from(steps[name])

    def parameters(self, optimizer: str) -> dict[str, Tensor]:
        """What an optimizer holds now, by name."""
        own = self.tracked[optimizer].own
        return dict(zip(own.layout.names, own.parameters, strict=True))

    # What the taps call, in the training thread.

    def _clipping(self, event: ClipEvent) -> None:
        in_pass = current_pass() != NO_PASS
        for follower in self._followers:
            tracked = follower.tracked
            with tracked.lock:
                given = tracked.own.given[event.ids]
                if given.strangers:
                    given = follower.given_perhaps_new(event)
                if given.columns:
                    tracked.ledger.note(events.clipping, given.columns, tracked.due, in_pass)

    def _clipped(self, event: ClipEvent, norm: Tensor | None) -> None:
        held = False
        for tracked in self.tracked.values():
            held = held or bool(tracked.own.given[event.ids].columns)
        # The gradients of others are not looked at.
        nothing = not held and (not event.ids or _is_zero(norm))
        for tracked in self.tracked.values():
            given = tracked.own.given[event.ids]
            with tracked.lock:
                gone = tracked.clipped(event.function, event.limit, event.norm_type, given, norm, nothing)
            for clip in gone:
                self._was_misdirected(clip, tracked.name)

    def _was_misdirected(self, clip: SeenClip, given: str) -> None:
        """Nothing came of a clip call: perhaps it was meant for an optimizer that stepped right after it."""
        for tracked in self.tracked.values():
            if tracked.name != given and tracked.was_passed_over(clip):
                tracked.clipped_instead = given

    def _unscaled(self, optimizer: Optimizer, scale: Tensor) -> None:
        for tracked in self._of(optimizer):
            with tracked.lock:
                tracked.unscaled(scale)

    def _scaler_begins(self, optimizer: Optimizer) -> None:
        """A GradScaler lets an optimizer step, or leaves it out."""
        for tracked in self._of(optimizer):
            self._steps_before_scaler[tracked.name] = tracked.steps

    def _scaler_is_done(self, optimizer: Optimizer) -> None:
        """A GradScaler is done; an optimizer that has not stepped was left out."""
        for follower in self._followers:
            tracked = follower.tracked
            if tracked.optimizer is optimizer and tracked.steps == self._steps_before_scaler.get(tracked.name):
                self.listener.stepping(tracked.name)
                with tracked.lock:
                    if tracked.has_changed:
                        follower.refresh()
                    step = tracked.skipped()
                self.listener.stepped(tracked.name, step, tracked.ledger.unusual)

    def was_consumed(self, tracked: TrackedOptimizer) -> None:
        """A step has used what passes wrote for it, and what the same passes wrote for other optimizers."""
        passes = tracked.passes
        for other in self.tracked.values():
            if other is tracked:
                continue
            common, numbers = other.own.common_with(tracked.own), passes & other.passes
            if common or numbers:
                with other.lock:
                    other.used_by_another(numbers, common)

    def changed(self) -> None:
        """An optimizer holds other parameters than before."""
        self._share_out_what_is_left_out()
        if self in clips.listeners:
            self._listen_to_clips()

    def _listen_to_clips(self) -> None:
        clips.listen(self, {id(p) for tracked in self.tracked.values() for p in tracked.own.parameters})

    def _of(self, optimizer: Optimizer) -> list[TrackedOptimizer]:
        return [tracked for tracked in self.tracked.values() if tracked.optimizer is optimizer]

    def _send(self) -> None:
        for tracked in self.tracked.values():
            if tracked.ledger.devices.used:
                with tracked.lock:
                    tracked.ledger.devices.send()

    def _share_out_what_is_left_out(self) -> None:
        """Each line's parameters that nobody holds, to the optimizers that hold others of it, or to the first."""
        several = list(self.tracked.values())
        for tracked in several:
            tracked.unheld.modules = {}
        for line, parameters in self._lines.lines.items():
            names = self._lines.names
            unheld = [
                (names[id(p)], p) for p in parameters if not p.is_meta and not any(t.own.holds(p) for t in several)
            ]
            if unheld:
                for tracked in [t for t in several if line in t.own.layout.lines.columns] or several[:1]:
                    tracked.unheld.modules = {**tracked.unheld.modules, line: unheld}

    def take_strays(self, found: Iterable[tuple[str, Tensor, int]]) -> None:
        """Parameters that no module holds: told of beside those of a module that no optimizer holds."""
        for tracked in list(self.tracked.values())[:1]:
            tracked.unheld.add_strays(found)


def _is_zero(norm: Tensor | None) -> bool:
    """Whether a clip call found nothing, as far as can be told without waiting for a device."""
    return norm is not None and norm.is_cpu and norm.numel() == 1 and float(norm) == 0.0


class _Follower:
    """What the taps on one optimizer and its parameters talk to: its events, made harmless."""

    def __init__(self, observer: Observer, tracked: TrackedOptimizer) -> None:
        self.tracked = tracked
        self.group = observer
        self._observer = observer
        self._hooks = GradientHooks(self, observer.shards.accumulator)
        # Threads that have written its parameters or stepped it: another one that writes them now may be in the
        # midst of it, without the interpreter's lock.
        self._threads: set[int] = set()
        self._looked = self._stopped = False
        around = observer.shield.around
        self.beginning, self.ended = around(self._beginning), around(self._ended)
        self._step_tap = StepTap(tracked.optimizer, around(self._consume), around(self._leave))

    def start(self) -> None:
        """Hook the optimizer and its parameters."""
        self._hooks.watch(self.tracked.own.parameters)
        self._step_tap.open()
        activity.keep(self)

    def stop(self) -> None:
        """Remove every hook."""
        # A pass that runs in another thread may still call what it has seen before.
        self._stopped = True
        self._step_tap.close()
        self._hooks.close()
        activity.forget(self)

    @property
    def compares(self) -> bool:
        """Whether some parameters have no hook and are compared instead."""
        return bool(self._hooks.unhooked)

    def given_perhaps_new(self, event: ClipEvent) -> Given:
        """What a clip call is given of its parameters: one that is not known may be new."""
        if self.tracked.has_changed:
            self.refresh()
        return self.tracked.own.given[event.ids]

    def refresh(self) -> None:
        """Take in what the optimizer holds now."""
        self.tracked.refresh()
        self._hooks.watch(self.tracked.own.parameters)
        self._observer.changed()
        if self._stopped:
            self._hooks.close()

    def _beginning(self, alone: bool) -> None:
        tracked = self.tracked
        if self._stopped:
            return
        with tracked.lock:
            if tracked.has_changed:
                self.refresh()
            if self._hooks.waiting:
                self._hooks.renew()
            self._looked = alone or len(self._threads) <= 1
            if self._looked:
                tracked.begins()

    def _ended(self, columns: frozenset[int], one: Pass) -> None:
        if self._stopped:
            return
        with self.tracked.lock:
            # What has changed since an earlier event may have been changed by the loop. One that was not told that
            # the pass begins, since others ran here for long, takes it for written; another thread may write it.
            told = self._looked or (self._threads <= {get_ident()} and is_alone())
            compared = self._hooks.unhooked if told else frozenset[int]()
            self._looked = False
            written = self.tracked.ended(columns, compared, one, self._observer)
        if written:
            self._threads.add(activity.keep(self))

    def _consume(self) -> object:
        tracked = self.tracked
        self._observer.listener.stepping(tracked.name)
        self._threads.add(activity.keep(self))
        with tracked.lock:
            if tracked.has_changed:
                self.refresh()
            step = tracked.consuming(current_pass())
        refuse = self._observer.listener.refused
        refused = None if step is None or refuse is None else refuse(tracked, step)
        if step is None or refused is None:
            return None
        step.leave_out()
        if refused == "skip":
            return LEAVE_OUT
        self._leave()
        return refused

    def _leave(self) -> None:
        tracked = self.tracked
        with tracked.lock:
            step = tracked.stepped()
        if not tracked.alone:
            self._observer.was_consumed(tracked)
        self._observer.listener.stepped(tracked.name, step, tracked.ledger.unusual)
