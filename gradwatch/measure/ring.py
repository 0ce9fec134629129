"""When numbers are read: from a device to the host in blocks, and nobody waits.

Each device with gradients has a ``Board``: one row of float64 that holds the newest norms of every column, before
and after clipping, and a few further numbers such as the norm that a clip call returned. A step copies the row
into a ring; a full ring starts its copy to the host behind the work that the device has still to do. Whether it
has arrived is asked, never waited for, until somebody wants to read.

Everything a training loop passes through here is a handful of kernels in the stream's order: no value is read.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.blocks import BEFORE, FloatArray

__all__ = ["Board", "HostCopy", "Ticket"]


class Board:
    """The newest numbers of one device, and the ring of rows on their way to the host.

    A row is ``[before of every column | after of every column | notes]``. The ring is written by ``index_copy_``
    with indices made in advance, so that a step launches the same few kernels whatever it measures.

    Args:
        device: where the gradients are.
        columns: parameters of the optimizer.
        notes: single numbers that a row carries besides, such as the norm that a clip call returned.
    """

    ROWS = 16

    # Selections differ by which gradients are there; a loop that never repeats one must not fill memory.
    MOST_INDICES = 64

    @torch.inference_mode(False)  # what is made inside could not be written to outside
    def __init__(self, device: torch.device, columns: int, notes: int) -> None:
        self.device = device
        self.columns = columns
        self.notes = notes
        self._row = torch.zeros(self.width, dtype=torch.float64, device=device)
        self._used = 0
        self._stream: Any = None
        self._copy = HostCopy()
        self._indices: dict[bytes, Tensor] = {}
        self._lay_out()

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return 2 * self.columns + self.notes

    @torch.inference_mode(False)
    def make_room(self, notes: int) -> None:
        """Make room for so many notes; the rows so far go on their way as they are."""
        if notes <= self.notes:
            return
        self.send()
        old, self.notes = self._row, notes
        self._row = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        self._row.narrow(0, 0, len(old)).copy_(old)
        self._lay_out()

    def side(self, side: int) -> Tensor:
        """The norms of all columns on one side: a view to write into."""
        return self._sides[side]

    @property
    def noted(self) -> Tensor:
        """The numbers besides: a view to write into."""
        return self._row.narrow(0, 2 * self.columns, self.notes)

    def indices(self, columns: npt.NDArray[np.intp]) -> Tensor:
        """These columns as an index on the device; brought there once, from memory that nothing waits for."""
        key = columns.tobytes()
        if key not in self._indices:
            if len(self._indices) >= self.MOST_INDICES:
                self._indices.clear()
            # A loop may select others at each step, such as the experts that were drawn.
            on_device = self.device.type != "cpu"
            index = torch.empty(len(columns), dtype=torch.int64, device="cpu", pin_memory=on_device)
            index.copy_(torch.tensor(columns.tolist(), device="cpu"))  # numpy: no device is read
            self._indices[key] = index.to(self.device, non_blocking=True)
        return self._indices[key]

    def note(self, place: int, number: Tensor) -> None:
        """Keep a number for the rows that follow."""
        value = number.detach().reshape(1).to(self.device, torch.float64, non_blocking=True)
        self._row.index_copy_(0, self._places[2 * self.columns + place], value)

    def divide(self, places: Tensor, scale: Tensor) -> None:
        """Divide the side before by a scale."""
        before = self.side(BEFORE)
        before.index_copy_(0, places, before.index_select(0, places) / scale.to(self.device, non_blocking=True))

    def take(self) -> Ticket:
        """Put the row as it stands into the ring."""
        if self.device.type != "cpu":
            # Whoever asks for the rows may do so from another thread, on another stream.
            self._stream = torch.get_device_module(self.device).current_stream(self.device)
        self._ring.index_copy_(0, self._places[self._used], self._row.unsqueeze(0))
        ticket = Ticket(self._copy, self._used, self.columns)
        self._used += 1
        if self._used == self.ROWS:
            self.send()
        return ticket

    def send(self) -> None:
        """Start the copy of the rows so far to the host."""
        if self._used:
            self._copy.start(self._ring, self._stream)
            # The next rows overwrite the ring in the order of the stream, after it was copied.
            self._copy, self._used = HostCopy(), 0

    def _lay_out(self) -> None:
        self._ring = torch.zeros(self.ROWS, self.width, dtype=torch.float64, device=self.device)
        self._sides = [self._row.narrow(0, start, self.columns) for start in (0, self.columns)]
        # An index of one element for each column and each row of the ring, made once.
        self._places = torch.arange(max(self.width, self.ROWS), device=self.device).unbind()


class HostCopy:
    """One block of rows on its way to the host."""

    def __init__(self) -> None:
        self._host: Tensor | None = None
        self._arrived: Any = None

    @property
    def started(self) -> bool:
        """Whether the copy is on its way."""
        return self._host is not None

    def start(self, rows: Tensor, stream: Any = None) -> None:
        """Copy, in the order of the stream that wrote the rows and without waiting.

        Page-locked memory comes from torch's own cache of it: after the first blocks none is allocated anew.

        Args:
            rows: the ring.
            stream: the device's stream that has written it; None in the memory of the CPU.
        """
        on_device = rows.device.type != "cpu"
        self._host = torch.empty(rows.shape, dtype=rows.dtype, device="cpu", pin_memory=on_device)
        if not on_device:
            self._host.copy_(rows)
            return
        module = torch.get_device_module(rows.device)
        with module.device(rows.device), module.stream(stream):
            self._host.copy_(rows, non_blocking=True)
            self._arrived = module.Event()
            self._arrived.record()

    def ready(self) -> bool:
        """Whether it has arrived; asked, not waited for."""
        return self.started and (self._arrived is None or bool(self._arrived.query()))

    def wait(self) -> None:
        """Wait until it has arrived: only for somebody who reads."""
        if self._arrived is not None:
            self._arrived.synchronize()

    def row(self, index: int) -> FloatArray:
        """A row that has arrived, as numpy sees the host's memory."""
        rows = cast("FloatArray", cast("Tensor", self._host).numpy())
        return cast("FloatArray", rows[index])


class Ticket:
    """One row in a block: what to fetch once it is on the host."""

    def __init__(self, copy: HostCopy, index: int, columns: int) -> None:
        self.copy = copy
        self._index = index
        self._columns = columns

    def side(self, side: int) -> FloatArray:
        """The norms of all columns on one side."""
        return self.copy.row(self._index)[side * self._columns : (side + 1) * self._columns]

    def note(self, place: int) -> float:
        """A number that was kept by ``Board.note``."""
        return float(self.copy.row(self._index)[2 * self._columns + place])
