"""From the training loop to the sinks: a bounded queue and a thread of its own.

A sink that is slow delays no step and one that fails disturbs nobody: when the queue is full the newest
records are dropped and counted, and a failure is logged once for each sink and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from gradwatch.records import Alert, Health, RunInfo, Sink, StepRecord

__all__ = ["Fanout"]

log = logging.getLogger("gradwatch")

_Batch = tuple[Sequence[StepRecord], Sequence[Alert]]


class Fanout:
    """Publishes to several sinks.

    Args:
        sinks: written to in this order.
        capacity: steps that may wait; alerts wait whatever it is.

    Attributes:
        dropped_records: records that no sink saw.
        sink_errors: failures by the sink's class name.
    """

    def __init__(self, sinks: Sequence[Sink], capacity: int = 10_000) -> None:
        self._sinks = tuple(sinks)
        self._capacity = capacity
        self._queue: queue.SimpleQueue[_Batch | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._owner = 0
        self.dropped_records = 0
        self.sink_errors: Counter[str] = Counter({type(sink).__name__: 0 for sink in self._sinks})

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the sinks that want it, and start the thread.

        Raises:
            SinkError: a sink cannot be opened; those opened before are closed again.
            MissingExtraError: a package that a sink needs is not installed.
        """
        opened: list[Sink] = []
        try:
            for sink in self._sinks:
                opened.append(sink)
                begin = getattr(sink, "open", None)
                if begin is not None:
                    begin(run, health)
        except BaseException:
            for sink in opened:
                self._safely(sink, sink.close)
            raise
        if self._sinks:
            self._owner = os.getpid()
            self._thread = threading.Thread(target=self._publish, name="gradwatch-sinks", daemon=True)
            self._thread.start()

    def put(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Hand over what has come; never waits. In a forked child, which has no such thread, nothing happens."""
        if not self._runs_here():
            return
        if self._queue.qsize() >= self._capacity:
            self.dropped_records += len(records)
            records = ()
        if records or alerts:
            self._queue.put((records, alerts))

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """Wait until all that was put before is written."""
        if self._runs_here():
            done = threading.Event()
            self._queue.put(done)
            done.wait(timeout_seconds)

    def close(self) -> None:
        """Write out what waits, close every sink once, end the thread."""
        if self._runs_here() and self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _runs_here(self) -> bool:
        return self._thread is not None and os.getpid() == self._owner

    def _publish(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            self._write([entry for entry in batch if isinstance(entry, tuple)])
            for entry in batch:
                if isinstance(entry, threading.Event):
                    entry.set()
            if None in batch:
                break
        for sink in self._sinks:
            self._safely(sink, sink.close)

    def _write(self, batch: list[_Batch]) -> None:
        if not batch:
            return
        records = [record for some, _ in batch for record in some]
        alerts = [alert for _, some in batch for alert in some]
        for sink in self._sinks:
            self._safely(sink, lambda sink=sink: sink.write(records, alerts))  # type: ignore[misc]

    def _safely(self, sink: Sink, call: Callable[[], None]) -> None:
        name = type(sink).__name__
        try:
            call()
        except Exception:
            self.sink_errors[name] += 1
            if self.sink_errors[name] == 1:
                log.exception("The sink %s failed; training goes on, this is logged once.", name)
