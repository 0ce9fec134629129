"""The newest norm of every slot, on both sides of clipping.

``Meter`` turns "measure these slots now" into numbers: at once for gradients in the memory of the CPU, on the
device for all others. Plans are kept by the slots they are for: a training loop asks for the same few
selections again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.measure.host import HostPlan, Scratch
from gradwatch.measure.norms import FloatArray, on_host, write_norms
from gradwatch.measure.ring import AFTER, BEFORE, Board, Ticket
from gradwatch.measure.slots import Slots

__all__ = ["BoolArray", "Meter", "Note", "Taken"]

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

# Where the norm of a slot is: in the host's arrays, or on the board of this number.
_HOST = -1


class Meter:
    """Measures the gradients of slots.

    Args:
        slots: the tracker's slots.
    """

    # Selections differ by which gradients are there; a loop that never repeats one must not fill memory.
    MOST_PLANS = 64

    COLUMNS_AT_ONCE = 8

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._columns = 0
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self.boards: list[Board] = []
        self.sides = np.zeros((2, len(slots)))
        self.place = np.full(len(slots), _HOST)

    @cached_property
    def scratch(self) -> Scratch:
        """Where the host squares; made when the first gradient turns out to be there."""
        return Scratch()

    def measure(self, side: int, selection: tuple[int, ...]) -> BoolArray:
        """Measure the gradients of these slots; whether there is one."""
        self._grow()
        gradients = self._slots.gradients(selection)
        present = np.array([gradient is not None for gradient in gradients], dtype=bool)
        if present.all():
            self._measure(side, selection, cast("list[Tensor]", gradients))
        elif present.any():
            held = tuple(slot for slot, g in zip(selection, gradients, strict=True) if g is not None)
            self._measure(side, held, [g for g in gradients if g is not None])
        return present

    def present(self, selection: tuple[int, ...]) -> BoolArray:
        """Whether there is a gradient in each of these slots."""
        gradients = [parameter.grad for parameter in self._slots.held(selection)]
        return np.array([gradient is not None for gradient in gradients], dtype=bool)

    def divide(self, selection: Sequence[int], scale: Tensor) -> None:
        """Divide the norms before clipping by a scale that gradients were multiplied by."""
        places = np.array(selection, dtype=np.intp)
        for board, there in self._by_board(places):
            board.divide(there, scale)
        there = places[self.place[places] == _HOST]
        if len(there):
            # Gradients on the host with a scale on a device: torch itself has just brought the scale over.
            self.sides[BEFORE, there] /= float(scale)

    def new_column(self) -> int:
        """A column for single numbers, in every row on a device from now on."""
        self._columns += 1
        return self._columns - 1

    @property
    def _notes(self) -> int:
        # In steps, so that many clip calls in a first step do not lay out the rows anew each time.
        return -(-self._columns // self.COLUMNS_AT_ONCE) * self.COLUMNS_AT_ONCE

    def note(self, number: Tensor, column: int) -> float | Note:
        """A number that torch has computed: itself where the host has it, else where it will be found."""
        if on_host(number):
            return float(number)  # a load
        board = self.board_of(number.device)
        self.boards[board].grow(len(self._slots), self._notes)
        self.boards[board].note(column, number)
        return Note(board, column)

    def take(self, slots: npt.NDArray[np.intp], notes: Iterable[Note]) -> Taken:
        """What is measured of these slots now, on both sides, also where it is still on a device."""
        place = self.place[slots]
        used = {int(number) for number in np.unique(place) if number != _HOST} | {note.board for note in notes}
        tickets = {number: self.boards[number].take() for number in used}
        return Taken(self.sides[:, slots], slots, place, tickets)

    def send(self) -> None:
        """Start the copy to the host of all that was taken."""
        for board in self.boards:
            board.send()

    def _measure(self, side: int, selection: tuple[int, ...], gradients: list[Tensor]) -> None:
        # What is made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            plan = self._plans.get(selection)
            if plan is not None and plan.fits(gradients):
                try:
                    plan.run(side, gradients)
                    return
                except RuntimeError:
                    # A gradient changed its form: the plan is made anew for what it is now.
                    pass
            self._made_plan(selection, gradients).run(side, gradients)

    def _made_plan(self, selection: tuple[int, ...], gradients: list[Tensor]) -> _Plan:
        if len(self._plans) >= self.MOST_PLANS:
            self._plans.clear()
        plan = self._plans[selection] = _Plan(self, selection, gradients)
        return plan

    def board_of(self, device: torch.device) -> int:
        """The number of a device's board."""
        for number, board in enumerate(self.boards):
            if board.device == device:
                return number
        self.boards.append(Board(device, len(self._slots), self._notes))
        return len(self.boards) - 1

    def _by_board(self, places: IntArray) -> Iterator[tuple[Board, Tensor]]:
        """Each board that has some of the slots, and which."""
        for number, board in enumerate(self.boards):
            there = places[self.place[places] == number]
            if len(there):
                yield board, board.indices(there)

    def _grow(self) -> None:
        more = len(self._slots) - len(self.place)
        if more:
            self.sides = np.append(self.sides, np.zeros((2, more)), axis=1)
            self.place = np.append(self.place, np.full(more, _HOST))
            for board in self.boards:
                board.grow(len(self._slots), self._notes)


class _Plan:
    """How the gradients of one selection are measured: which on the host, which on which device."""

    def __init__(self, meter: Meter, selection: tuple[int, ...], gradients: list[Tensor]) -> None:
        self._meter = meter
        self._devices = _devices(gradients)
        self._all_on_host = not any(self._devices)
        self._places = np.array(selection, dtype=np.intp)
        self._where = np.array([_HOST if d is None else meter.board_of(d) for d in self._devices])
        host = np.flatnonzero(self._where == _HOST)
        self._host_places = self._places[host]
        self._host_indices: list[int] = host.tolist()
        on_host = [gradients[index] for index in self._host_indices]
        self._host = HostPlan(on_host, meter.scratch) if on_host else None
        self._parts = [self._part_on(number) for number in sorted(set(self._where.tolist()) - {_HOST})]

    def fits(self, gradients: list[Tensor]) -> bool:
        """Whether the gradients are still where they were; the host's own plan looks at each of its own."""
        return self._all_on_host or _devices(gradients) == self._devices

    def run(self, side: int, gradients: list[Tensor]) -> None:
        """Measure.

        Raises:
            RuntimeError: a gradient has changed its form since the plan was made.
        """
        meter = self._meter
        if self._host is not None:
            on_host = gradients if self._all_on_host else [gradients[index] for index in self._host_indices]
            meter.sides[side, self._host_places] = self._host.norms(on_host)
        for board, indices, places in self._parts:
            write_norms(board.side(side), places, [gradients[index] for index in indices])
        meter.place[self._places] = self._where

    def _part_on(self, number: int) -> tuple[Board, list[int], Tensor]:
        board = self._meter.boards[number]
        indices = np.flatnonzero(self._where == number)
        return board, indices.tolist(), board.indices(self._places[indices])


class Taken:
    """The norms of one optimizer's slots as they were at one moment, whole once every block has landed.

    Args:
        sides: ``[2, slots]`` of the host; 0.0 where a norm comes from a device.
        slots: the slots, in the order of the holding.
        place: for each of them the board that has its norm.
        tickets: the rows taken, by board.
    """

    def __init__(self, sides: FloatArray, slots: IntArray, place: IntArray, tickets: Mapping[int, Ticket]) -> None:
        self._sides = sides
        self._slots = slots
        self._place = place
        self._tickets = tickets

    def ready(self) -> bool:
        """Whether all of it is on the host; asked, not waited for."""
        return all(ticket.landing.ready() for ticket in self._tickets.values())

    def wait(self) -> None:
        """Wait for the devices: only for somebody who reads."""
        for ticket in self._tickets.values():
            ticket.landing.wait()

    def sides(self) -> FloatArray:
        """``[2, slots]``: the norms before and after, in the order of the holding."""
        for number, ticket in self._tickets.items():
            there = self._place == number
            for side in (BEFORE, AFTER):
                self._sides[side, there] = ticket.side(side)[self._slots[there]]
        return self._sides

    def number(self, noted: float | Note) -> float:
        """A number that was noted, wherever it was."""
        return self._tickets[noted.board].note(noted.column) if isinstance(noted, Note) else noted


class Note(NamedTuple):
    """A number that is still on a device: on which board, in which column."""

    board: int
    column: int


def _devices(gradients: Sequence[Tensor]) -> list[torch.device | None]:
    return [None if on_host(gradient) else gradient.device for gradient in gradients]
