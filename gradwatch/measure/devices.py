"""Norms of gradients that are not in the memory of the CPU: they stay on their device until a block is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.blocks import BEFORE, BoolArray, Columns, FloatArray
from gradwatch.measure.norms import on_host, write_norms
from gradwatch.measure.ring import Board, Ticket

__all__ = ["DeviceNorms", "Note", "PendingNorms"]

Where = npt.NDArray[np.int8]

# Where the norm of a column is: with the host, or on the board of this number.
HOST = -1


class Note(NamedTuple):
    """A number that is still on a device: on which board, in which place."""

    board: int
    place: int


class DeviceNorms:
    """The boards of one optimizer, one for each device that has gradients of it.

    Args:
        columns: how many parameters it holds.

    Attributes:
        used: whether anything was ever on a device.
    """

    NOTES_AT_ONCE = 8

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._boards: list[Board] = []
        self._where: Where = np.full((2, columns), HOST, dtype=np.int8)
        self._noted = 0
        self.used = False

    def take_over(self, earlier: DeviceNorms, columns: Columns, known: BoolArray) -> None:
        """Go on with the norms before clipping of another list of parameters, and with what was noted.

        Args:
            earlier: the norms of that list, to which nothing is written from now on.
            columns: the column that each parameter had in it.
            known: whether it had one.
        """
        # Nobody else does that from now on.
        earlier.send()
        with torch.inference_mode(False), torch.no_grad():
            for old in earlier._boards:
                board = self._boards[self._board_of(old.device)]
                here, there = board.indices(np.flatnonzero(known)), old.indices(columns[known])
                board.side(BEFORE).index_copy_(0, here, old.side(BEFORE).index_select(0, there))
                board.make_room(old.notes)
                board.noted.copy_(old.noted)
        self._where[:, known] = earlier._where[:, columns[known]]
        self._noted = earlier._noted

    def write(
        self, side: int, measured: bytes, elsewhere: Sequence[int], gradients: Sequence[Tensor | None]
    ) -> None:
        """Measure the gradients that the host could not.

        Args:
            side: before or after clipping.
            measured: all columns that were to be measured, int64.
            elsewhere: those of them that are on devices.
            gradients: by column.
        """
        where = self._where[side]
        where[np.frombuffer(measured, dtype=np.int64)] = HOST
        # What is made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            for number, columns in self._by_board(elsewhere, gradients).items():
                board, places = self._boards[number], np.array(columns, dtype=np.intp)
                write_norms(board.side(side), board.indices(places), [_there(gradients[c]) for c in columns])
                where[places] = number

    def divide(self, columns: Sequence[int], scale: Tensor, host: FloatArray) -> None:
        """Divide the norms before clipping by a scale that gradients were multiplied by."""
        places = np.array(columns, dtype=np.intp)
        where = self._where[BEFORE, places]
        for number, board in enumerate(self._boards):
            there = places[where == number]
            if len(there):
                board.divide(board.indices(there), scale)
        if (where == HOST).any():
            # Gradients on the host with a scale on a device: torch itself has just brought the scale over.
            host[places[where == HOST]] /= float(scale)

    def gathered(self, side: int, columns: Columns) -> Tensor | None:
        """The norms of some columns on the device that has all of them; None where no one device has."""
        boards = set(self._where[side, columns].tolist())  # numpy: no device is read
        if len(boards) != 1 or HOST in boards:
            return None
        board = self._boards[boards.pop()]
        found: Tensor = board.side(side).index_select(0, board.indices(columns))
        return found

    def note(self, number: object) -> float | Note | None:
        """A number that torch has computed: itself where the host has it, else where it will be found."""
        if not isinstance(number, Tensor):
            return None
        if on_host(number):
            return float(number)  # a load
        board = self._board_of(number.device)
        place, self._noted = self._noted, self._noted + 1
        self._boards[board].make_room(-(-self._noted // self.NOTES_AT_ONCE) * self.NOTES_AT_ONCE)
        self._boards[board].note(place, number)
        return Note(board, place)

    def take(self) -> PendingNorms | None:
        """The norms as they are now, still on their devices; None where all of them are with the host."""
        self._noted = 0
        if not self._boards:
            return None
        tickets = {number: board.take() for number, board in enumerate(self._boards)}
        return PendingNorms(self._where.copy(), tickets)

    def send(self) -> None:
        """Start the copy to the host of all that was taken."""
        for board in self._boards:
            board.send()

    def _by_board(self, columns: Sequence[int], gradients: Sequence[Tensor | None]) -> Mapping[int, list[int]]:
        found: dict[int, list[int]] = {}
        for column in columns:
            found.setdefault(self._board_of(_there(gradients[column]).device), []).append(column)
        return found

    def _board_of(self, device: torch.device) -> int:
        for number, board in enumerate(self._boards):
            if board.device == device:
                return number
        self.used = True
        self._boards.append(Board(device, self._columns, self.NOTES_AT_ONCE))
        return len(self._boards) - 1


class PendingNorms:
    """The norms of one step that are still on devices.

    Args:
        where: ``[2, columns]``, the board that has each norm.
        tickets: the rows taken, by board.
    """

    def __init__(self, where: Where, tickets: Mapping[int, Ticket]) -> None:
        self._where = where
        self._tickets = tickets

    def ready(self) -> bool:
        """Whether all of it is on the host; asked, not waited for."""
        return all(ticket.copy.ready() for ticket in self._tickets.values())

    def wait(self) -> None:
        """Wait for the devices: only for somebody who reads."""
        for ticket in self._tickets.values():
            ticket.copy.wait()

    def fill(self, side: int, norms: FloatArray) -> None:
        """Put the norms of one side into a row, ``[columns]``."""
        for number, ticket in self._tickets.items():
            there = self._where[side] == number
            norms[there] = ticket.side(side)[there]

    def number(self, noted: Note) -> float:
        """A number that was noted."""
        return self._tickets[noted.board].note(noted.place)


def _there(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient
