"""From the events of a training loop to the records of its steps: the taps and the measuring, put together.

The observer decides what is measured at which event. It knows nothing of verdicts and sinks: each record goes to
one function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from gradwatch.errors import NonFiniteGradientError
from gradwatch.measure.following import NO_PASS, Followed, Marks
from gradwatch.measure.meter import Meter
from gradwatch.measure.ownership import Ownership
from gradwatch.measure.parts import whole_number
from gradwatch.measure.ring import BEFORE
from gradwatch.measure.shards import Shards
from gradwatch.measure.slots import ModuleNames, Slots, parameters_of
from gradwatch.measure.steps import SeenClip
from gradwatch.reporting import Reporting, Told, peers_for
from gradwatch.taps import clips, passes, scaler
from gradwatch.taps.backwards import BackwardTap
from gradwatch.taps.clips import ClipEvent
from gradwatch.taps.guard import Guard
from gradwatch.taps.passes import current_pass
from gradwatch.taps.steps import LEAVE_OUT, StepTap

__all__ = ["Observer"]


class Observer:
    """Sees every step of some optimizers and reports each once its numbers are there.

    Args:
        optimizers: by name.
        names: the report's lines.
        every: measure each n-th step of each optimizer.
        guard: what to do with a step that would consume NaN or Inf: ``"raise"``, ``"skip"`` or let it be (None).
        told: what to tell of records and steps.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        names: ModuleNames,
        every: int,
        guard: Literal["raise", "skip"] | None,
        told: Told,
    ) -> None:
        self.guard = Guard()
        parameters = [p for optimizer in optimizers.values() for p in parameters_of(optimizer)]
        self._slots = Slots(Shards(parameters))
        self.followed = {
            name: Followed(name, optimizer, self._slots, names, every) for name, optimizer in optimizers.items()
        }
        self._names = names
        self._marks = Marks()
        self._ownership = Ownership(self._slots)
        self._meter = Meter(self._slots)
        self._reporting = Reporting(self._meter, told.report)
        self._every = every
        self._refuse = guard
        self._before_step = self.guard.around(told.stepping)
        self._after_step = self.guard.around(told.stepped)
        self._lock = self._reporting.lock
        self._backward_tap = BackwardTap(self.guard.around(self._backward_ended), self._slots.shards.accumulator)
        self._step_taps: list[StepTap] = []
        self._frozen: list[tuple[int, Tensor]] = []
        self._listener = _Listener(self, self.guard)
        self._finish = self.guard.around(self._reporting.finish)

    @property
    def dropped_steps(self) -> int:
        """Steps without a record, since other ranks did not give their share."""
        return self._reporting.dropped_steps

    def start(self) -> None:
        """Meet the other ranks where parameters are in parts, and hook everything."""
        questions = self._refuse is not None
        peers = peers_for(self._slots.shards, self.followed, f"{self._every} {self._refuse}", questions)
        self._reporting.start(peers)
        around = self.guard.around
        self._hook_all()
        for followed in self.followed.values():
            consuming, stepped = partial(self._consuming, followed), partial(self._stepped, followed)
            self._step_taps.append(StepTap(followed.optimizer, around(consuming), around(stepped)))
        for tap in (passes, clips, scaler):
            tap.listen(self._listener)

    def stop(self, normally: bool) -> None:
        """Remove every hook, and report what is left.

        Args:
            normally: the loop ended by itself: other ranks may be waited for.
        """
        for tap in (passes, clips, scaler):
            tap.stop_listening(self._listener)
        for step_tap in self._step_taps:
            step_tap.close()
        self._backward_tap.close()
        self._finish(normally)

    def caught_up(self) -> AbstractContextManager[None]:
        """All that was measured so far is reported, and nothing more while this lasts; waits for the devices."""
        return self._reporting.caught_up()

    def steps(self) -> dict[str, int]:
        """Steps so far by optimizer."""
        return {name: followed.steps for name, followed in self.followed.items()}

    def go_on_from(self, steps: Mapping[str, int]) -> None:
        """Count on from these steps."""
        for name, followed in self.followed.items():
            followed.steps = steps[name]

    # What the taps call, in the training thread.

    def beginning(self) -> None:
        """A backward pass is about to begin: see to it that what it will write is hooked."""
        with self._lock:
            self._refresh(self.followed.values())
            self._ownership.beginning()
            self._frozen = self._backward_tap.watch(self._frozen)
            self._backward_tap.beginning()

    def ended(self, backward_pass: int) -> None:
        """It has ended."""
        self._backward_tap.ended(backward_pass)

    def _backward_ended(self, slots: tuple[int, ...], backward_pass: int) -> None:
        with self._lock:
            self._ownership.written(slots, self._marks.next_event(len(self._slots)))
            touched = [f for f in self.followed.values() if f.holds_any(slots)]
            for followed in touched:
                followed.backward_ran(backward_pass)
            waiting = [f for f in touched if f.due and not f.has_stepped_in(backward_pass)]
            if waiting:
                self._measure_written(slots, waiting, backward_pass)
        for tap in self._step_taps:
            tap.stay_last()

    def _measure_written(self, slots: tuple[int, ...], waiting: list[Followed], backward_pass: int) -> None:
        # What an optimizer has consumed within this pass may be gone; what another still waits for is not.
        written = [slot for slot in slots if any(slot in f.holding.place_of_slot for f in waiting)]
        # What earlier passes wrote may have been zeroed since, or averaged.
        earlier = [slot for f in waiting for slot in f.measured_earlier(self._marks)]
        self._measure(tuple(dict.fromkeys(written + earlier)), backward_pass)

    def _measure(self, slots: tuple[int, ...], backward_pass: int = NO_PASS) -> None:
        self._marks.next_event(len(self._slots))
        self._marks.measured(slots, self._meter.measure(BEFORE, slots), backward_pass)

    def clipping(self, event: ClipEvent) -> None:
        """A clip call is about to change gradients: measure what nothing has measured yet."""
        with self._lock:
            self._marks.next_event(len(self._slots))
            slots = self._slots.of(event.parameters)
            if len(slots) < len(event.parameters):
                self._refresh(self.followed.values())
                slots = self._slots.of(event.parameters)
            for followed in self.followed.values():
                missing = followed.not_yet_measured(slots, self._marks) if followed.due else ()
                if missing:
                    self._measure(missing, current_pass())
            self._marks.next_event(len(self._slots))
            self._marks.clipped(slots)
            self._ownership.clipping(slots)

    def clipped(self, event: ClipEvent, norm: Tensor | None) -> None:
        """It is done."""
        norm = None if norm is None else whole_number(norm)
        with self._lock:
            slots = self._slots.of(event.parameters)
            repeated = self._slots.repeated(event.parameters)
            self._ownership.clipped(slots, self._marks.event)
            # A spent generator, or a copy that has no gradients: told to every optimizer that waits for its step.
            nothing = not slots and all(parameter.grad is None for parameter in event.parameters)
            for followed in self.followed.values():
                if followed.due and (followed.holds_any(slots) or (nothing and followed.waits_for_step)):
                    clip = SeenClip(*event[:3], slots, repeated, self._marks.event)
                    for gone in followed.clip_seen(clip, norm, self._meter, self._ownership):
                        self._was_misdirected(gone, followed.name)

    def _was_misdirected(self, clip: SeenClip, given: str) -> None:
        """Nothing came of a clip call: perhaps it was meant for an optimizer that stepped right after it."""
        for followed in self.followed.values():
            if followed.name != given and followed.was_passed_over(clip):
                followed.clipped_instead = given

    def unscaled(self, optimizer: Optimizer, scale: Tensor) -> None:
        """A GradScaler has divided the gradients of an optimizer."""
        with self._lock:
            self._marks.next_event(len(self._slots))
            for followed in self._followed_of(optimizer):
                followed.unscaled(scale, self._meter)
                if followed.due:
                    clipped = set(followed.clipped_already(self._marks))
                    self._meter.divide(tuple(clipped), scale)
                    self._measure(tuple(slot for slot in followed.holding.slots if slot not in clipped))

    def scaler_stepping(self, optimizer: Optimizer) -> None:
        """A GradScaler lets an optimizer step, or leaves it out."""
        with self._lock:
            for followed in self._followed_of(optimizer):
                followed.steps_before_scaler = followed.steps

    def scaler_stepped(self, optimizer: Optimizer) -> None:
        """The GradScaler is done; an optimizer that has not stepped was left out."""
        with self._lock:
            for followed in self._followed_of(optimizer):
                if followed.steps == followed.steps_before_scaler:
                    self._before_step(followed.name)
                    self._marks.next_event(len(self._slots))
                    self._reporting.take(followed.skipped(self._marks, self._meter))
                    self._after_step(followed.name)

    def _consuming(self, followed: Followed) -> object:
        with self._lock:
            self._before_step(followed.name)
            self._refresh([followed])
            self._marks.next_event(len(self._slots))
            owned = self._ownership.consumed(followed.holding.slots, followed.reported_at)
            followed.consume(self._marks, self._meter, current_pass(), owned)
            return self._refused(followed) if self._refuse else None

    def _refused(self, followed: Followed) -> object:
        """What becomes of a step that would consume NaN or Inf. Asking waits for the device: once a step."""
        self._meter.send()
        bad = followed.nonfinite()
        # Each rank sees its own parts; a step is taken by all of them or by none.
        if not self._reporting.on_any_rank(bool(bad)):
            return None
        followed.leave_out()
        if self._refuse == "skip":
            return LEAVE_OUT
        self._stepped(followed)
        whose = bad[0] if bad else "a parameter of which another rank has a part"
        return NonFiniteGradientError(
            f"Step {followed.steps} of {followed.name!r} was stopped, since the gradient of {whose} "
            f"{f'and of {len(bad) - 1} more ' if len(bad) > 1 else ''}holds NaN or Inf: nothing was changed, so "
            "look at this step's data and loss."
        )

    def _stepped(self, followed: Followed) -> None:
        with self._lock:
            self._ownership.left(followed.holding.slots)
            self._reporting.take(followed.stepped(self._marks))
            self._after_step(followed.name)

    def _followed_of(self, optimizer: Optimizer) -> Iterator[Followed]:
        return (followed for followed in self.followed.values() if followed.optimizer is optimizer)

    def _refresh(self, several: Iterable[Followed]) -> None:
        changed = [followed for followed in several if followed.refresh()]
        if changed:
            released = self._slots.release({slot for f in self.followed.values() for slot in f.holding.slots})
            self._backward_tap.unwatch(released)
            self._marks.next_event(len(self._slots))
            self._marks.forget(released)
            self._ownership.forget(released)
            self._hook_all()

    def parameters(self, optimizer: str) -> dict[str, Tensor]:
        """What an optimizer holds now, by name."""
        holding = self.followed[optimizer].holding
        return dict(zip(holding.names, holding.parameters, strict=True))

    def _hook_all(self) -> None:
        self._share_out_what_is_left_out()
        self._frozen = self._backward_tap.watch(pair for f in self.followed.values() for pair in f.parameters())

    def _share_out_what_is_left_out(self) -> None:
        """Each module's parameters that nobody holds, to the optimizers that hold others; else to the first."""
        first = next(iter(self.followed.values()))
        for followed in self.followed.values():
            followed.left_out = {}
        for module, unheld in self._names.left_out_by(self._slots).items():
            holders = [f for f in self.followed.values() if module in f.holding.modules] or [first]
            for followed in holders:
                followed.left_out = {**followed.left_out, module: unheld}


class _Listener:
    """What the taps on torch's own functions talk to: the observer, made harmless."""

    def __init__(self, observer: Observer, guard: Guard) -> None:
        self.beginning = guard.around(observer.beginning)
        self.ended = observer.ended  # what it calls is guarded itself
        self.clipping = guard.around(observer.clipping)
        self.clipped = guard.around(observer.clipped)
        self.unscaled = guard.around(observer.unscaled)
        self.stepping = guard.around(observer.scaler_stepping)
        self.stepped = guard.around(observer.scaler_stepped)
