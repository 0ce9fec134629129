"""When numbers are read: from a device to the host in blocks, and nobody waits.

Each device with gradients has a ``Board``: one row of float64 that holds the newest norms of every slot, before
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

from gradwatch.measure.norms import FloatArray

__all__ = ["AFTER", "BEFORE", "Board", "Landing", "Ticket"]

# The two sides of clipping, as indices.
BEFORE, AFTER = 0, 1


class Board:
    """The newest numbers of one device, and the ring of rows on their way to the host.

    A row is ``[before of every slot | after of every slot | notes]``. The ring is written by ``index_copy_``
    with indices made in advance, so that a step launches the same few kernels whatever it measures.

    Args:
        device: where the gradients are.
        slots: slots of the tracker.
        notes: single numbers that a row carries besides, such as the norm that a clip call returned.
    """

    ROWS = 16

    # Selections differ by which gradients are there; a loop that never repeats one must not fill memory.
    MOST_INDICES = 64

    @torch.inference_mode(False)  # what is made inside could not be written to outside
    def __init__(self, device: torch.device, slots: int, notes: int) -> None:
        self.device = device
        self.slots = slots
        self.notes = notes
        self._row = torch.zeros(self.width, dtype=torch.float64, device=device)
        self._used = 0
        self._landing = Landing()
        self._indices: dict[bytes, Tensor] = {}
        self._lay_out()

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return 2 * self.slots + self.notes

    @torch.inference_mode(False)
    def grow(self, slots: int, notes: int) -> None:
        """Make room for more slots and notes; the rows so far go on their way as they are."""
        if slots <= self.slots and notes <= self.notes:
            return
        self.send()
        old = torch.split(self._row, [self.slots, self.slots, self.notes])
        self.slots, self.notes = max(slots, self.slots), max(notes, self.notes)
        self._row = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        for part, start in zip(old, (0, self.slots, 2 * self.slots), strict=True):
            self._row.index_copy_(0, torch.arange(start, start + len(part), device=self.device), part)
        self._lay_out()

    def side(self, side: int) -> Tensor:
        """The norms of all slots on one side: a view to write into."""
        return self._sides[side]

    def indices(self, slots: npt.NDArray[np.intp]) -> Tensor:
        """These slots as an index on the device; brought there once, from memory that nothing waits for."""
        key = slots.tobytes()
        if key not in self._indices:
            if len(self._indices) >= self.MOST_INDICES:
                self._indices.clear()
            # A loop may select others at each step, such as the experts that were drawn.
            on_device = self.device.type != "cpu"
            index = torch.empty(len(slots), dtype=torch.int64, device="cpu", pin_memory=on_device)
            index.copy_(torch.tensor(slots.tolist(), device="cpu"))  # numpy: no device is read
            self._indices[key] = index.to(self.device, non_blocking=True)
        return self._indices[key]

    def note(self, column: int, number: Tensor) -> None:
        """Keep a number for the rows that follow."""
        place = self._places[2 * self.slots + column]
        self._row.index_copy_(
            0, place, number.detach().reshape(1).to(self.device, torch.float64, non_blocking=True)
        )

    def divide(self, places: Tensor, scale: Tensor) -> None:
        """Divide the side before by a scale."""
        before = self.side(BEFORE)
        before.index_copy_(0, places, before.index_select(0, places) / scale.to(self.device, non_blocking=True))

    def take(self) -> Ticket:
        """Put the row as it stands into the ring."""
        self._ring.index_copy_(0, self._places[self._used], self._row.unsqueeze(0))
        ticket = Ticket(self._landing, self._used, self.slots)
        self._used += 1
        if self._used == self.ROWS:
            self.send()
        return ticket

    def send(self) -> None:
        """Start the copy of the rows so far to the host."""
        if self._used:
            self._landing.start(self._ring)
            # The next rows overwrite the ring in the order of the stream, after it was copied.
            self._landing, self._used = Landing(), 0

    def _lay_out(self) -> None:
        self._ring = torch.zeros(self.ROWS, self.width, dtype=torch.float64, device=self.device)
        self._sides = [self._row.narrow(0, start, self.slots) for start in (0, self.slots)]
        # An index of one element for each column and each row of the ring, made once.
        self._places = torch.arange(max(self.width, self.ROWS), device=self.device).unbind()


class Landing:
    """One block of rows on its way to the host."""

    def __init__(self) -> None:
        self._host: Tensor | None = None
        self._arrived: Any = None

    @property
    def started(self) -> bool:
        """Whether the copy is on its way."""
        return self._host is not None

    def start(self, rows: Tensor) -> None:
        """Copy, in the order of the device's stream and without waiting.

        Page-locked memory comes from torch's own cache of it: after the first blocks none is allocated anew.
        """
        on_device = rows.device.type != "cpu"
        self._host = torch.empty(rows.shape, dtype=rows.dtype, device="cpu", pin_memory=on_device)
        self._host.copy_(rows, non_blocking=True)
        self._arrived = recorded_event(rows.device) if on_device else None

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
    """One row in a block: what to fetch once it has landed."""

    def __init__(self, landing: Landing, index: int, slots: int) -> None:
        self.landing = landing
        self._index = index
        self._slots = slots

    def side(self, side: int) -> FloatArray:
        """The norms of all slots on one side."""
        return self.landing.row(self._index)[side * self._slots : (side + 1) * self._slots]

    def note(self, column: int) -> float:
        """A number that was kept by ``Board.note``."""
        return float(self.landing.row(self._index)[2 * self._slots + column])


def recorded_event(device: torch.device) -> Any:
    """An event behind everything that the device has been given so far."""
    module = torch.get_device_module(device)
    with module.device(device):
        event = module.Event()
        event.record()
    return event
