"""When numbers are read: from a device to the host in blocks, and nobody waits.

Each device with gradients has a ``Board``: the newest norms of every column, before and after clipping, and a few
further numbers such as the norm that a clip call returned. A step takes them as they are, in one row; the 16th row
starts the copy of all to the host, behind the work that the device has still to do. Whether it has arrived is
asked, never waited for, until somebody wants to read.

Everything a training loop passes through here is a handful of kernels in the stream's order: no value is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.blocks import BEFORE, FloatArray

__all__ = ["Board", "HostCopy", "Ticket"]


class Board:
    """The newest numbers of one device, and the rows on their way to the host.

    A row is ``[before of every column | after of every column | notes]``.

    Args:
        device: where the gradients are.
        columns: parameters of the optimizer.
    """

    ROWS = 16

    # Selections differ by which gradients are there; a loop that never repeats one must not fill memory.
    MOST_INDICES = 64

    @torch.inference_mode(False)  # what is made inside could not be written to outside
    def __init__(self, device: torch.device, columns: int) -> None:
        self.device = device
        self.columns = columns
        self._norms = torch.zeros(2 * columns, dtype=torch.float64, device=device)
        self._sides = [self._norms.narrow(0, start, columns) for start in (0, columns)]
        self._notes: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._stream: Any = None
        self._copy = HostCopy()
        self._indices: dict[bytes, Tensor] = {}

    def side(self, side: int) -> Tensor:
        """The norms of all columns on one side: a view to write into."""
        return self._sides[side]

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

    def note(self, number: Tensor) -> int:
        """Keep a number as it is now for the next row; its place there."""
        value = number.detach().reshape(1)
        self._notes.append(value.to(self.device, torch.float64, non_blocking=True, copy=True))
        return len(self._notes) - 1

    def divide(self, places: Tensor, scale: Tensor) -> None:
        """Divide the side before by a scale."""
        before = self.side(BEFORE)
        before.index_copy_(0, places, before.index_select(0, places) / scale.to(self.device, non_blocking=True))

    def take(self) -> Ticket:
        """The numbers as they stand: one more row."""
        if self.device.type != "cpu":
            # Whoever asks for the rows may do so from another thread, on another stream.
            self._stream = torch.get_device_module(self.device).current_stream(self.device)
        ticket = Ticket(self._copy, sum(map(len, self._rows)), self.columns)
        self._rows.append(torch.cat([self._norms, *self._notes]))
        self._notes = []
        if len(self._rows) == self.ROWS:
            self.send()
        return ticket

    def send(self) -> None:
        """Start the copy of the rows so far to the host."""
        if self._rows:
            self._copy.start(self._rows, self._stream)
            self._copy, self._rows = HostCopy(), []


class HostCopy:
    """Some rows, end to end, on their way to the host."""

    def __init__(self) -> None:
        self._host: Tensor | None = None
        self._arrived: Any = None

    @property
    def started(self) -> bool:
        """Whether the copy is on its way."""
        return self._host is not None

    def start(self, rows: Sequence[Tensor], stream: Any = None) -> None:
        """Copy, in the order of the stream that wrote the rows and without waiting.

        Page-locked memory comes from torch's own cache of it: after the first blocks none is allocated anew.

        Args:
            rows: float64, on one device.
            stream: the device's stream that has written them; None in the memory of the CPU.
        """
        device = rows[0].device
        if device.type == "cpu":
            self._host = torch.cat(list(rows))
            return
        module = torch.get_device_module(device)
        with module.device(device), module.stream(stream):
            joined = torch.cat(list(rows))
            self._host = torch.empty(joined.shape, dtype=joined.dtype, device="cpu", pin_memory=True)
            self._host.copy_(joined, non_blocking=True)
            self._arrived = module.Event()
            self._arrived.record()

    def ready(self) -> bool:
        """Whether it has arrived; asked, not waited for."""
        return self.started and (self._arrived is None or bool(self._arrived.query()))

    def wait(self) -> None:
        """Wait until it has arrived: only for somebody who reads."""
        if self._arrived is not None:
            self._arrived.synchronize()

    def numbers(self, start: int, count: int) -> FloatArray:
        """So many numbers that have arrived, as numpy sees the host's memory."""
        return cast("FloatArray", cast("Tensor", self._host).numpy())[start : start + count]


class Ticket(NamedTuple):
    """One row: what to fetch once it is on the host.

    Attributes:
        copy: what brings it there.
        start: where it begins in that.
        columns: norms on each side.
    """

    copy: HostCopy
    start: int
    columns: int

    def side(self, side: int) -> FloatArray:
        """The norms of all columns on one side."""
        return self.copy.numbers(self.start + side * self.columns, self.columns)

    def note(self, place: int) -> float:
        """A number that was kept by ``Board.note``."""
        return float(self.copy.numbers(self.start + 2 * self.columns + place, 1)[0])
