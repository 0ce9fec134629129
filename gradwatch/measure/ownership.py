"""Whose gradient a step consumes: what was written for it, or what an earlier step has used already.

A gradient is followed by what torch tells of its tensor without reading a value: which object it is, and its
version, which every in-place change raises. A backward pass that adds to the gradient that was there raises the
version by one; one that starts anew gives another version. Where the two do not tell, because something else
has changed the tensor in between, the gradient counts as started anew: no fault is claimed on a guess.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.measure.norms import on_host
from gradwatch.measure.parts import versions_of
from gradwatch.measure.slots import Slots

__all__ = ["Consumed", "Ownership"]

_Flags = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.int64]


class Consumed(NamedTuple):
    """What is known of the gradients that a step consumes, in the order of its slots.

    Attributes:
        unwritten: no backward pass has written it since the optimizer's last step.
        stale: nor has anything else: it is as that step left it.
        leaked: an earlier step, of whatever optimizer, had used a part of it before the rest was added.
        missed_by_clip: a pass has written it after the last clip call that was given it.
        clipped_between: a clip call was given a part of it before a pass added the rest.
        written_at: the event of the last pass that has written any of them.
    """

    unwritten: _Flags
    stale: _Flags
    leaked: _Flags
    missed_by_clip: _Flags
    clipped_between: _Flags
    written_at: int


class Ownership:
    """Follows every slot from the pass that writes it to the steps that use it."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        # A column for each slot. Passes are numbered by the event at which they ended.
        self._tensor, self._version, self._last_pass, self._left_version = np.zeros((4, 0), dtype=np.int64)
        # The last pass that did not add to what was there.
        self._begun_anew = np.zeros(0, dtype=np.int64)
        self._clipped_at, self._written_by, self._loss = np.zeros((3, 0), dtype=np.int64)
        # What a step of its own optimizer has used, and what that of another has.
        self._used, self._shared, self._leaked = np.zeros((3, 0), dtype=bool)
        self._known, self._untouched, self._clipped, self._between = np.zeros((4, 0), dtype=bool)

    def beginning(self) -> None:
        """A pass is about to begin: where there is no gradient it adds to none.

        The next tensor may be made at the address of the last one, with a version that looks like one more change.
        Only what this thread has written is looked at: the engine writes ``.grad`` without the interpreter's lock,
        and one that a pass of another thread may be writing now must not be touched.
        """
        self._grow()
        own = np.flatnonzero(self._written_by == threading.get_ident())
        mine: list[int] = own.tolist()  # numpy: no device is read
        held = self._slots.held(mine)
        missing = [slot for slot, parameter in zip(mine, held, strict=True) if parameter.grad is None]
        self._tensor[missing] = 0
        self._tensor[self._zeroed_unseen(own)] = 0

    def _zeroed_unseen(self, own: npt.NDArray[np.intp]) -> list[int]:
        """Of what a step has used and nothing is known to have changed since: what ``.data.zero_()`` has emptied.

        torch does not count such a change, so that the values are looked at, where that waits for no device. A
        loop that zeroes in any other way has nothing to look at here.
        """
        used = own[(self._used | self._shared)[own] & (self._tensor[own] != 0)]
        if not len(used):
            return []
        tensors, versions = self._look(used)
        as_left = used[(tensors == self._tensor[used]) & (versions == self._version[used])].tolist()  # numpy
        gradients = [parameter.grad for parameter in self._slots.held(as_left)]
        return [
            slot
            for slot, gradient in zip(as_left, gradients, strict=True)
            if gradient is not None and on_host(gradient) and _is_zero(gradient)
        ]

    def written(self, slots: Sequence[int], event: int) -> None:
        """A backward pass has written these."""
        self._grow()
        places = np.array(slots, dtype=np.intp)
        tensors, versions = self._look(slots)
        added = (tensors == self._tensor[places]) & (versions == self._version[places] + 1)
        # The same loss once more, as its passes are known by where they are called and by what they write: one
        # optimizer accumulates over the steps of another. Two losses of a GAN may write the same.
        loss = hash((_call_site(), frozenset(slots)))
        others = self._shared[places] & (self._loss[places] != loss)
        self._leaked[places] = added & (self._leaked[places] | self._used[places] | others)
        self._between[places] = added & (self._between[places] | self._clipped[places])
        self._used[places] = self._shared[places] = self._clipped[places] = False
        self._loss[places] = loss
        self._last_pass[places] = event
        self._written_by[places] = threading.get_ident()
        self._begun_anew[places] = np.where(added, self._begun_anew[places], event)
        self._tensor[places], self._version[places] = tensors, versions

    def clipping(self, slots: Sequence[int]) -> None:
        """A clip call is about to change these in place: it makes nothing new of what is there."""
        self._grow()
        places = np.array(slots, dtype=np.intp)
        tensors, versions = self._look(slots)
        same = tensors == self._tensor[places]
        self._known[places] = same & (versions == self._version[places])
        self._untouched[places] = same & (versions == self._left_version[places])

    def clipped(self, slots: Sequence[int], event: int) -> None:
        """It is done; what was followed up to it is followed on."""
        self._grow()
        places = np.array(slots, dtype=np.intp)
        _, versions = self._look(slots)
        known = self._known[places]
        self._version[places] = np.where(known, versions, self._version[places])
        self._left_version[places] = np.where(self._untouched[places], versions, self._left_version[places])
        self._clipped[places] = known
        self._clipped_at[places] = event

    def is_gone(self, slots: Sequence[int], event: int) -> bool:
        """Whether nothing is left of the gradients that these slots had at this event."""
        return all(self._begun_anew[slot] > event or self._slots.parameter(slot).grad is None for slot in slots)

    def consumed(self, slots: Sequence[int], since: int) -> Consumed:
        """A step consumes these; what is known of them.

        Args:
            slots: the slots that the optimizer holds.
            since: the event of its last step.
        """
        self._grow()
        places = np.array(slots, dtype=np.intp)
        tensors, versions = self._look(slots)
        unwritten = self._last_pass[places] <= since
        untouched = (tensors == self._tensor[places]) & (versions == self._left_version[places])
        clipped_at = self._clipped_at[places]
        return Consumed(
            unwritten,
            unwritten & untouched & (tensors != 0),
            self._leaked[places].copy(),
            (clipped_at > since) & (self._last_pass[places] > clipped_at),
            self._between[places].copy(),
            int(self._last_pass[places].max(initial=0)),
        )

    def left(self, slots: Sequence[int]) -> None:
        """The step is done and leaves its gradients like this; a fused one has changed them in place."""
        self._grow()
        places = np.array(slots, dtype=np.intp)
        self._tensor[places], versions = self._look(slots)
        self._version[places] = self._left_version[places] = versions
        self._clipped[places] = self._between[places] = False
        # It used what its passes wrote, also what the same passes wrote for other optimizers.
        for backward_pass in set(self._last_pass[places].tolist()) - {0}:  # numpy: no device is read
            self._shared |= self._last_pass == backward_pass
        self._used[places] = self._last_pass[places] > 0

    def forget(self, slots: Sequence[int]) -> None:
        """These slots are another parameter's from now on."""
        self._grow()
        places = np.array(slots, dtype=np.intp)
        self._tensor[places] = self._last_pass[places] = 0
        self._clipped_at[places] = self._begun_anew[places] = self._written_by[places] = 0
        for flags in self._flags():
            flags[places] = False

    def _flags(self) -> tuple[_Flags, ...]:
        return self._used, self._shared, self._leaked, self._known, self._untouched, self._clipped, self._between

    def _look(self, slots: Iterable[int]) -> tuple[_Numbers, _Numbers]:
        """The identity and the version of each gradient; 0 and -1 where there is none."""
        gradients = [parameter.grad for parameter in self._slots.held(slots)]
        tensors = [0 if gradient is None else id(gradient) for gradient in gradients]
        looked = np.array([tensors, versions_of(gradients)], dtype=np.int64)
        return looked[0], looked[1]

    def _grow(self) -> None:
        more = len(self._slots) - len(self._tensor)
        if not more:
            return
        numbers, flags = np.zeros(more, dtype=np.int64), np.zeros(more, dtype=bool)
        self._left_version = np.append(self._left_version, numbers - 1)
        self._tensor, self._version, self._last_pass, self._begun_anew, self._clipped_at = (
            np.append(column, numbers)
            for column in (self._tensor, self._version, self._last_pass, self._begun_anew, self._clipped_at)
        )
        self._written_by, self._loss = np.append(self._written_by, numbers), np.append(self._loss, numbers)
        (
            self._used,
            self._shared,
            self._leaked,
            self._known,
            self._untouched,
            self._clipped,
            self._between,
        ) = (np.append(column, flags) for column in self._flags())


def _is_zero(gradient: Tensor) -> bool:
    """Whether a gradient in the memory of the CPU is 0 everywhere: to read it is a load there."""
    if gradient.layout is not torch.strided:
        return gradient.layout is torch.sparse_coo and not gradient.any()
    # One element tells of nearly every gradient that is not zero, and the norm, which may round to 0, of the
    # rest; any() alone takes ten times as long.
    if gradient.numel() and gradient[(0,) * gradient.dim()]:
        return False
    return not torch.linalg.vector_norm(gradient) and not gradient.any()


def _call_site(deepest: int = 32) -> int:
    """Where in the program this is called from."""
    lines: list[tuple[str, int | None]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(lines) < deepest:
        lines.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return hash(tuple(lines))
