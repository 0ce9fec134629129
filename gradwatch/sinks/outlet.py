"""One sink, with a bounded queue and a thread of its own: what it does to itself it does to nobody else."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from gradwatch.blocks import Block, Steps
from gradwatch.errors import SinkError
from gradwatch.records import Alert, Sink

__all__ = ["Outlet", "bytes_of"]

log = logging.getLogger("gradwatch")

_NOTHING = Steps(())


class _Entry(NamedTuple):
    steps: Steps
    alerts: Sequence[Alert]
    size: int = 0
    written: Callable[[], object] | None = None
    last: bool = False


class Outlet:
    """Takes what comes to one sink, in order; a failure is logged once, and counted.

    Before the first write and between two it rests, so that steps gather: to wake a thread and to begin a write
    costs the training more than another step in it. Alerts, who waits, and a sink with ``prompt`` end the rest at
    once. A sink with ``patient`` does nothing with steps before an alert comes: it rests until then, unless much
    waits, and nobody waits for it.

    Args:
        name: of the sink, in the log and in counts.
        sink: written to and closed by the thread.
        capacity: bytes of steps that may wait or be written at a time; alerts wait whatever it is.

    Attributes:
        dropped: records that did not fit.
        errors: failures of the sink.
    """

    # What waits is written in one go, but no more at once: to write it takes some times as many bytes.
    BYTES_AT_ONCE = 1 << 20
    REST_SECONDS = 0.1

    def __init__(self, name: str, sink: Sink, capacity: int) -> None:
        self.name = name
        self.sink = sink
        self._capacity = capacity
        self._queue: queue.SimpleQueue[_Entry] = queue.SimpleQueue()
        # Each is changed by one side alone, so that neither takes a lock: putting is done by one thread at a time.
        self._came = self._gone = 0
        self._alerts_came = self._alerts_gone = 0
        self._told = 0
        self._prompt = getattr(sink, "prompt", False)
        self._patient = getattr(sink, "patient", False)
        # Held while nobody is in a hurry; to let go of it takes no lock, so that a signal's handler may do it too.
        self._calm = threading.Lock()
        self._calm.acquire()
        self._ending = False
        self.dropped = 0
        self.errors = 0
        self.thread = threading.Thread(target=self._publish, name=f"gradwatch-{name}", daemon=True)

    def put(self, steps: Steps, size: int, alerts: Sequence[Alert]) -> None:
        """Hand over steps of so many bytes, and alerts; waits for nothing."""
        if self._ending:
            return
        waiting = self._came - self._gone
        # What is larger than all the room is taken where nothing else waits.
        if waiting and waiting + size > self._capacity:
            self.dropped += len(steps)
            steps, size = _NOTHING, 0
        if steps.pairs or alerts:
            self._came += size
            self._alerts_came += len(alerts)
            self._queue.put(_Entry(steps, alerts, size))
            if alerts or waiting + size >= self.BYTES_AT_ONCE:
                self._hurry()

    def mark(self, written: Callable[[], object]) -> None:
        """Have this called when all that was put before is written; it must not raise."""
        if self._patient and self._alerts_came == self._alerts_gone:
            written()
            return
        self._queue.put(_Entry(_NOTHING, (), written=written))
        self._hurry()

    def end(self) -> None:
        """Let the thread write what waits, close the sink and end; a second time is no harm."""
        # In this order: an interrupt in between leaves a second call to do it.
        self._queue.put(_Entry(_NOTHING, (), last=True))
        self._hurry()
        self._ending = True

    def close_sink(self) -> None:
        """Close the sink; what it raises is counted."""
        self._guarded(self.sink.close)

    def _publish(self) -> None:
        self._rest()
        while self._goes_on():
            self._tell_once()
            self._rest()
        self.close_sink()
        self._tell_at_the_end()

    def _goes_on(self) -> bool:
        several, alerts_of_each, sizes, written, last = zip(*self._next(), strict=True)
        # Neither can be changed: a sink that tries takes nothing away from another.
        steps, alerts = Steps.joined(several), tuple(chain.from_iterable(alerts_of_each))
        if steps.pairs or alerts:
            self._guarded(lambda: self.sink.write(steps, alerts))
        self._gone += sum(sizes)
        self._alerts_gone += len(alerts)
        for tell in filter(None, written):
            tell()
        return not any(last)

    def _rest(self) -> None:
        # What is there already was wanted meanwhile, or was too much for one go.
        if not self._prompt and self._queue.empty():
            self._calm.acquire(timeout=-1 if self._patient else self.REST_SECONDS)

    def _hurry(self) -> None:
        with suppress(RuntimeError):  # it is in a hurry already
            self._calm.release()

    def _next(self) -> list[_Entry]:
        entries = [self._queue.get()]
        size = entries[0].size
        while size < self.BYTES_AT_ONCE and not self._queue.empty():
            entries.append(self._queue.get())
            size += entries[-1].size
        return entries

    def _guarded(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except BaseException as error:  # one that exits, or that is cancelled, would end the thread
            self.errors += 1
            if self.errors == 1:
                self._tell_of(error)

    def _tell_of(self, error: BaseException) -> None:
        # What a sink of gradwatch's says of itself is one sentence; of others one needs to know where.
        said, trace = (f": {error}", None) if isinstance(error, SinkError) else ("", error)
        with suppress(BaseException):  # a handler of the user's
            log.error(
                "The sink %s failed%s; training goes on, this is logged once.",
                self.name,
                said.removesuffix("."),
                exc_info=trace,
            )

    def _tell_once(self) -> None:
        if self.dropped and not self._told:
            self._tell("and more may be; training and other sinks go on, this is logged once")

    def _tell_at_the_end(self) -> None:
        if self.dropped > self._told:
            self._tell("all in all")

    def _tell(self, what: str) -> None:
        self._told = self.dropped
        with suppress(BaseException):
            log.warning("The sink %s is too slow: %d records are missing in it, %s.", self.name, self._told, what)


# A row with its clip calls, and what is kept for each step beside arrays.
_A_STEP = 1000


def bytes_of(steps: Steps) -> int:
    """What steps take up, about, with what judging them has worked out."""
    return sum(map(_of_block, steps.sequences))


def _of_block(records: Sequence[object]) -> int:
    if not isinstance(records, Block):
        # Made by hand.
        return _A_STEP * len(records)
    layout = records.layout
    # As measured: both norms of each column and group, squared, flagged, and as the tables of a record.
    numbers = 12 * len(layout.names) + 4 * (len(layout.lines.names) + len(layout.owners.names))
    return len(records) * (_A_STEP + 8 * numbers)
