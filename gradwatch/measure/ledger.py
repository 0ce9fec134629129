"""What is measured of one optimizer's gradients at each event, and what is known of them.

Taps note events; the ledger looks at the gradients, asks ``Provenance`` what follows, and measures what that
names. It interprets nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import compress
from operator import attrgetter, not_
from typing import cast

import numpy as np
from torch import Tensor

from gradwatch.blocks import AFTER, BEFORE, BoolArray, Facts, StepRow
from gradwatch.measure import events, kernel
from gradwatch.measure.devices import DeviceNorms
from gradwatch.measure.of_late import OfLate
from gradwatch.measure.parameters import OptimizerParameters
from gradwatch.measure.pending import PendingStep, SeenClip
from gradwatch.measure.provenance import Consumed, Provenance, Seen
from gradwatch.measure.sharding.shards import Shards

__all__ = ["Ledger"]

look = kernel.look

_noted, _requires_grad = attrgetter("noted"), attrgetter("requires_grad")

# A function of ``events``.
Event = Callable[..., object]


class Ledger:
    """The gradients of one optimizer, followed from the pass that writes them to the step that consumes them.

    Args:
        own: the parameters that the optimizer holds.
        shards: how they lie on the ranks.
        earlier: the ledger of the list of parameters before this one.

    Attributes:
        devices: the norms that are not with the host, and other numbers that torch has computed there.
        unusual: something in the newest step should be told of at once: a gradient that is exactly 0, or nearly
            so, or not there, and was not so before; one that is not finite; or a norm far above those of late.
    """

    def __init__(self, own: OptimizerParameters, shards: Shards, earlier: Ledger | None = None) -> None:
        columns = len(own)
        self.own = own
        self._parameters = own.parameters
        self._shards = shards
        self._any_dtensor = any(map(shards.is_dtensor, own.parameters))
        self._all = np.arange(columns, dtype=np.int64).tobytes()
        self._few = tuple(sorted({0, columns // 2, columns - 1})) if columns else ()
        # int64 [2, columns]: identity and version of each gradient at the last look.
        self._state = bytearray(np.repeat(np.array([[0], [-1]], dtype=np.int64), columns, axis=1).tobytes())
        # float64 [columns]: the newest norms before clipping.
        self._before = bytearray(8 * columns)
        # The norms that the last measured step has left: NaN before the first, None where it has changed them.
        self._left: bytearray | None = bytearray(np.full(columns, np.nan).tobytes())
        self.devices = DeviceNorms(columns)
        self._provenance = Provenance.unknown(columns)
        self.last_pass = np.zeros(columns, dtype=np.int64)
        self._squares_before = 0.0
        self._of_late = OfLate()
        self.unusual = True
        if earlier is not None:
            self._take_over(earlier)

    def _take_over(self, earlier: Ledger) -> None:
        """Go on with what is known of those parameters that were held before."""
        columns, known = self.own.columns_in(earlier.own)
        self.devices.take_over(earlier.devices, columns, known)
        if not len(earlier.own) or not len(columns):
            return
        self._provenance = earlier._provenance.with_columns(columns, known)
        state = np.frombuffer(self._state, dtype=np.int64).reshape(2, -1)
        before = np.frombuffer(self._before)
        state[:, known] = np.frombuffer(earlier._state, dtype=np.int64).reshape(2, -1)[:, columns[known]]
        before[known] = np.frombuffer(earlier._before)[columns[known]]
        if self._left is None or earlier._left is None:
            self._left = None
        else:
            np.frombuffer(self._left)[known] = np.frombuffer(earlier._left)[columns[known]]
        self.last_pass[known] = earlier.last_pass[columns[known]]

    # Nearly each event looks at all gradients, whichever it is about: so what has changed between two is known.

    def note(self, event: Event, *what: Hashable) -> Seen:
        """Something has happened: what follows is known from now on, and what it names is measured.

        Args:
            event: the function of ``gradwatch.measure.events`` that says what follows.
            what: its further arguments, behind the codes.
        """
        gradients, codes = look(self._parameters, self._state)
        seen = self._provenance[(event, codes, *what)]
        self._provenance = seen.state
        if seen.places:
            self._squares_before, _ = self._write(BEFORE, seen.places, gradients, self._before)
        return seen

    def learn(self, event: Event, *what: Hashable) -> None:
        """Something is known of the gradients that no look at them tells."""
        self._provenance = self._provenance[(event, *what)].state

    def left(self, due: bool) -> None:
        """A step is done, and has left the gradients as it has consumed them, or changed them in place.

        Whichever it was, a few of them tell: a fused optimizer unscales all, and others decay or centre them. Were
        one to change none of the few, the rest would count as changed by the loop, of which nothing is claimed.
        """
        if not kernel.unchanged(self._parameters, self._state, self._few):
            look(self._parameters, self._state)
            # A step that is not measured has not looked at what it consumed.
            self._left = None if due else self._left
        self.learn(events.left, due)

    def begins(self) -> tuple[int, ...]:
        """A pass is about to begin: from which columns it is erased what passes wrote and no step has used."""
        gradients, codes = look(self._parameters, self._state)
        begun = self._provenance[events.beginning, codes]
        self._provenance = begun.state
        zeroed = kernel.zeros(gradients, begun.look_at) if begun.look_at else ()
        if zeroed:
            self.learn(events.zeroed, zeroed)
        if begun.erased is None:
            return ()
        gone, changed = begun.erased
        return gone + kernel.zeros(gradients, changed)

    def ended(
        self, columns: frozenset[int], compared: frozenset[int], loss: int, measuring: bool
    ) -> frozenset[int]:
        """A pass has ended: what it has written. One that has written nothing is no event of these gradients.

        The arguments are those of ``events.ended``.
        """
        gradients, codes = look(self._parameters, self._state)
        seen = self._provenance[events.ended, codes, columns, compared, loss, measuring]
        if seen.written:
            self._provenance = seen.state
            if seen.places:
                self._squares_before, _ = self._write(BEFORE, seen.places, gradients, self._before)
        return seen.written

    @property
    def is_touched(self) -> bool:
        """Whether the pass that runs now has written any of the gradients, as far as the last event has seen."""
        return self._provenance.is_touched

    def gone(self, clips: Sequence[SeenClip]) -> list[SeenClip]:
        """Those of the calls of which nothing came: what they had clipped was zeroed, and written anew since."""
        given = [(clip, clip.noted.columns.tolist()) for clip in clips]  # numpy: no device is read
        return [clip for clip, columns in given if columns and all(map(self._is_gone, columns))]

    def _is_gone(self, column: int) -> bool:
        return self._parameters[column].grad is None or self._provenance.is_begun_anew(column)

    def unscaled(self, scale: Tensor, due: bool) -> None:
        """A GradScaler has divided the gradients by this scale."""
        outdated = self._provenance.outdated if due else ()
        if outdated:
            self.devices.divide(outdated, scale, np.frombuffer(self._before))
        self.note(events.unscaled, due)

    def consumed(self, number: int, backward_passes: int, clips: Sequence[SeenClip], in_pass: bool) -> PendingStep:
        """A step consumes the gradients as they are: measure them."""
        gradients, codes = look(self._parameters, self._state)
        # What requires no gradient is asked only where something was not written.
        unwritten = self._provenance.unwritten
        frozen = self._frozen(unwritten) if unwritten else ()
        seen = self._provenance[events.consumed, codes, in_pass, frozen]
        self._provenance = seen.state
        after = bytearray(len(self._before))
        squares, faint = self._write(AFTER, self._all, gradients, after)
        facts, covered = cast("Consumed", seen.consumed)
        if "stale" in facts.marks:
            facts = self._really_stale(facts, covered, after)
        self._left = after
        self.unusual = self._of_late.is_broken_by(facts, faint, self._squares_before, squares)
        row = StepRow(number, time.time(), facts, backward_passes, tuple(map(_noted, clips)))
        return PendingStep(self.own.row, row, bytes(self._before), after, covered)

    def _frozen(self, columns: Sequence[int]) -> tuple[int, ...]:
        """Those of these columns whose parameter requires no gradient."""
        asked = map(_requires_grad, map(self._parameters.__getitem__, columns))
        return tuple(compress(columns, map(not_, asked)))

    def _really_stale(self, facts: Facts, covered: BoolArray | None, after: bytearray) -> Facts:
        """What has the norm that the last step left: another tensor may lie where one was freed.

        So it is where the loop sets gradients by hand, as ``torch.autograd.grad`` returns them.
        """
        if self._left is None:
            return facts
        before = np.frombuffer(self._before)
        now = before if covered is None else np.where(covered, before, np.frombuffer(after))
        same = np.isclose(now, np.frombuffer(self._left), rtol=1e-9, atol=0.0)
        return facts if same[facts.stale].all() else replace(facts, stale=facts.stale & same)

    def skipped(self, number: int, backward_passes: int, clips: Sequence[SeenClip], due: bool) -> PendingStep:
        """A step was not taken: what was measured before it."""
        self.unusual = True
        before, none = bytes(self._before), bytes(len(self._before))
        facts, covered = cast("Consumed", self.note(events.skipped, due).consumed)
        row = StepRow(number, time.time(), facts, backward_passes, tuple(map(_noted, clips)), skipped=True)
        return PendingStep(self.own.row, row, before, none, covered)

    def settled(self) -> None:
        """The newest step is told of, and nothing hangs on the next one: norms like its own are usual."""
        self._of_late.settled()

    def _write(
        self, side: int, places: bytes, gradients: list[Tensor | None], norms: bytearray
    ) -> tuple[float, int]:
        """Write the norms of these columns; the sum of the host's squares, and how many are faint."""
        if self._any_dtensor:
            # What this rank has of each.
            gradients = self._shards.parts(self._parameters, gradients)
        squares, faint, elsewhere = kernel.norms(gradients, places, norms)
        if elsewhere or self.devices.used:
            self.devices.write(side, places, elsewhere or (), gradients)
        return squares, faint
