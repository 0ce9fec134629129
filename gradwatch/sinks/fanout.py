"""From the training loop to the sinks, each of which has a queue and a thread of its own.

A sink that is slow delays no step and no other sink, and one that fails disturbs nobody: where the queue of a sink
is full the newest records are dropped and counted, and a failure is logged once for each sink and counted.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from gradwatch.blocks import Steps
from gradwatch.log import log
from gradwatch.records import Alert, Health, RunInfo, Sink, StepRecord
from gradwatch.sinks.outlet import Outlet, bytes_of

__all__ = ["Fanout"]


class Fanout:
    """Publishes to several sinks at once.

    Args:
        sinks: written to, each in its own thread. In counts they go by the name of their class, numbered where
            there are several of one.
        capacity: bytes of steps that may wait for each; alerts wait whatever it is.
    """

    # A sink that hangs must not hold up the training for ever.
    PATIENCE_SECONDS = 60.0

    def __init__(self, sinks: Sequence[Sink], capacity: int = 64 << 20) -> None:
        self._outlets = [Outlet(name, sink, capacity) for name, sink in _named(sinks)]
        # The process in which the threads run; 0 before and after.
        self._owner = 0

    @property
    def dropped(self) -> dict[str, int]:
        """Records that each sink has missed, since its queue was full."""
        return {outlet.name: outlet.dropped for outlet in self._outlets}

    @property
    def sink_errors(self) -> dict[str, int]:
        """Failures of each sink."""
        return {outlet.name: outlet.errors for outlet in self._outlets}

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the sinks that want it, and start the threads.

        Raises:
            SinkError: a sink cannot be opened; it is closed again, and so are those before it.
            MissingExtraError: a package that a sink needs is not installed.
        """
        begun: list[Outlet] = []
        try:
            for outlet in self._outlets:
                begun.append(outlet)
                begin = getattr(outlet.sink, "open", None)
                if begin is not None:
                    begin(run, health)
            self._owner = os.getpid()
            for outlet in self._outlets:
                outlet.thread.start()
        except BaseException:
            self._take_back(begun)
            raise

    def put(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Hand over what has come; never waits, and makes no record of a block.

        In a forked child, which has no such threads, nothing happens.
        """
        if self._outlets and self._runs_here():
            steps = Steps.of(records)
            size = bytes_of(steps)
            for outlet in self._outlets:
                outlet.put(steps, size, alerts)

    def flush(self) -> None:
        """Wait until all that was put before is written; a sink that asks for it would wait for itself."""
        if self._runs_here() and not self._is_ours():
            for outlet in _Writing(self._outlets).left_after(self.PATIENCE_SECONDS):
                self._tell_of_a_slow_sink(outlet, "has not written everything yet")

    def close(self) -> None:
        """Write out what waits, close every sink once, end the threads."""
        if not self._runs_here():
            return
        for outlet in self._outlets:
            outlet.end()
        if self._is_ours():
            # A sink that closes the tracker is closed itself when its write is over.
            return
        patience = self._patience()
        for outlet in self._outlets:
            outlet.thread.join(next(patience))
            if outlet.thread.is_alive():
                # It ends with the process at the latest.
                self._tell_of_a_slow_sink(outlet, "is left behind, and what it has not written may be lost")
        self._owner = 0

    def _patience(self) -> Iterator[float]:
        """What is left of it, in seconds: for all sinks together."""
        until = time.monotonic() + self.PATIENCE_SECONDS
        while True:
            yield max(0.0, until - time.monotonic())

    def _tell_of_a_slow_sink(self, outlet: Outlet, how: str) -> None:
        with suppress(Exception):  # a handler of the user's
            log.warning("After %.0f s the sink %s %s; training goes on.", self.PATIENCE_SECONDS, outlet.name, how)

    def _runs_here(self) -> bool:
        return self._owner != 0 and os.getpid() == self._owner

    def _is_ours(self) -> bool:
        """Whether a sink asks: to wait for its own thread, or for one that waits for it, would take for ever."""
        return threading.current_thread() in [outlet.thread for outlet in self._outlets]

    def _take_back(self, begun: Iterable[Outlet]) -> None:
        self._owner = 0
        for outlet in begun:
            if outlet.thread.ident is None:
                outlet.close_sink()
            else:
                outlet.end()


class _Writing:
    """Outlets that write what was put before; who waits for all of them is woken once, by the last."""

    def __init__(self, outlets: Sequence[Outlet]) -> None:
        self._left = dict.fromkeys(outlets)
        self._over = threading.Event()
        for outlet in outlets:
            outlet.mark(partial(self._has_written, outlet))

    def left_after(self, seconds: float) -> list[Outlet]:
        """Those that have not written it when so much time is over; none, as soon as all have."""
        if self._left:
            self._over.wait(seconds)
        return list(self._left)

    def _has_written(self, outlet: Outlet) -> None:
        self._left.pop(outlet, None)
        if not self._left:
            self._over.set()


def _named(sinks: Sequence[Sink]) -> Iterator[tuple[str, Sink]]:
    seen: Counter[str] = Counter()
    for sink in sinks:
        kind = type(sink).__name__
        seen[kind] += 1
        yield kind if seen[kind] == 1 else f"{kind}-{seen[kind]}", sink
