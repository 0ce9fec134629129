"""From the training loop to the sinks: a bounded queue and a thread of its own.

A sink that is slow delays no step and one that fails disturbs nobody: when the queue is full the newest
records are dropped and counted, and a failure is logged once for each sink and counted.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from gradwatch.blocks import Steps
from gradwatch.log import log
from gradwatch.records import Alert, Health, RunInfo, Sink, StepRecord

__all__ = ["Fanout"]

_Batch = tuple[Steps, Sequence[Alert]]


class Fanout:
    """Publishes to several sinks.

    Args:
        sinks: written to in this order.
        capacity: hand-overs that may wait; alerts wait whatever it is.

    Attributes:
        dropped_records: records that no sink saw.
        sink_errors: failures by sink: its class name, numbered where there are several of a class.
    """

    # A sink that hangs must not hold up the training for ever.
    PATIENCE_SECONDS = 60.0

    def __init__(self, sinks: Sequence[Sink], capacity: int = 10_000) -> None:
        self._sinks = _named(sinks)
        self._capacity = capacity
        self._queue: queue.SimpleQueue[_Batch | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._busy = ""
        # Optimizers may be stepped from several threads.
        self._counting = threading.Lock()
        self.dropped_records = 0
        self.sink_errors: Counter[str] = Counter(dict.fromkeys(self._sinks, 0))

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the sinks that want it, and start the thread; with no sinks there is none.

        Raises:
            SinkError: a sink cannot be opened; those opened before it are closed again.
            MissingExtraError: a package that a sink needs is not installed.
        """
        opened: list[str] = []
        try:
            for name, sink in self._sinks.items():
                begin = getattr(sink, "open", None)
                if begin is not None:
                    begin(run, health)
                opened.append(name)
        except BaseException:
            self._close_sinks(opened)
            raise
        if self._sinks:
            self._owner = os.getpid()
            self._thread = threading.Thread(target=self._publish, name="gradwatch-sinks", daemon=True)
            self._thread.start()

    def put(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Hand over what has come; never waits, and makes no record of a block.

        In a forked child, which has no such thread, nothing happens.
        """
        if not self._runs_here():
            return
        if self._queue.qsize() >= self._capacity:
            with self._counting:
                self.dropped_records += len(records)
            records = ()
        if records or alerts:
            self._queue.put((Steps.of(records), alerts))

    def flush(self) -> None:
        """Wait until all that was put before is written; a sink that asks for it would wait for itself."""
        if self._runs_here() and threading.current_thread() is not self._thread:
            done = threading.Event()
            self._queue.put(done)
            if not done.wait(self.PATIENCE_SECONDS):
                self._tell_of_a_slow_sink("has not written everything yet")

    def close(self) -> None:
        """Write out what waits, close every sink once, end the thread."""
        if self._runs_here() and self._thread is not None:
            thread, self._thread = self._thread, None
            self._queue.put(None)
            if threading.current_thread() is thread:
                # A sink that closes the tracker is closed itself when its write is over.
                return
            thread.join(self.PATIENCE_SECONDS)
            if thread.is_alive():
                # It ends with the process at the latest.
                self._tell_of_a_slow_sink("is left behind, and what it has not written may be lost")

    def _tell_of_a_slow_sink(self, how: str) -> None:
        log.warning("After %.0f s the sink %s %s; training goes on.", self.PATIENCE_SECONDS, self._busy, how)

    def _runs_here(self) -> bool:
        return self._thread is not None and os.getpid() == self._owner

    def _publish(self) -> None:
        while True:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            self._write([entry for entry in waiting if isinstance(entry, tuple)])
            for entry in waiting:
                if isinstance(entry, threading.Event):
                    entry.set()
            if None in waiting:
                break
        self._close_sinks(self._sinks)

    def _write(self, batches: list[_Batch]) -> None:
        if not batches:
            return
        # Neither can be changed: a sink that tries takes nothing away from another. A record that one of them
        # has read is there for the next, and all are let go of when the last has written.
        records = Steps.joined(steps for steps, _ in batches)
        alerts = tuple(alert for _, some in batches for alert in some)
        for name, sink in self._sinks.items():
            self._busy = name
            try:
                sink.write(records, alerts)
            except BaseException:  # one that exits, or that is cancelled, would end the thread of all of them
                self._failed(name)

    def _close_sinks(self, names: Iterable[str]) -> None:
        for name in names:
            self._busy = name
            try:
                self._sinks[name].close()
            except BaseException:
                self._failed(name)

    def _failed(self, name: str) -> None:
        self.sink_errors[name] += 1
        if self.sink_errors[name] == 1:
            log.exception("The sink %s failed; training goes on, this is logged once.", name)


def _named(sinks: Sequence[Sink]) -> dict[str, Sink]:
    named: dict[str, Sink] = {}
    seen: Counter[str] = Counter()
    for sink in sinks:
        kind = type(sink).__name__
        seen[kind] += 1
        named[kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"] = sink
    return named
