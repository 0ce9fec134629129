"""An endpoint that a Prometheus server scrapes."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gradwatch.blocks import Steps
from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.curves import curves
from gradwatch.sinks.endpoint import Endpoint
from gradwatch.sinks.exposition import OptimizerState, new_states
from gradwatch.sinks.families import families

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Prometheus"]


class Prometheus:
    """Serves the metrics of ``gradwatch.monitoring.metrics`` at ``http://{addr}:{port}/metrics``.

    Args:
        port: TCP port.
        addr: address to listen on; only this machine reaches the default.

    Raises:
        ArgumentError: the port is none.
    """

    def __init__(self, port: int = 19109, addr: str = "127.0.0.1") -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ArgumentError(f"The Prometheus port is {port!r}, but a number from 1 to 65535 was expected.")
        self._port = port
        self._addr = addr
        self._lock = threading.Lock()
        self._states: Mapping[str, OptimizerState] = {}
        self._modules_dropped = 0
        self._run: RunInfo | None = None
        self._health: Callable[[], Health] = Health
        self._server: Endpoint | None = None

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Listen.

        Raises:
            SinkError: the port is in use, or the address is not this machine's.
        """
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        self._run, self._health = run, health
        self._states, self._modules_dropped = new_states(run)
        # A registry of its own: the user's own metrics stay where they are.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server = Endpoint(
                (self._addr, self._port), CONTENT_TYPE_LATEST, lambda: generate_latest(registry)
            )
        except OSError as error:
            raise SinkError(
                f"Prometheus cannot listen on {self._addr}:{self._port} ({error.strerror}): "
                "end what uses the port, or give another one."
            ) from error
        _listening.add(self)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Set the state that the next scrape reads."""
        with self._lock:
            for alike in Steps.of(records).alike:
                shown = curves(alike)
                self._states[shown.optimizer].take(shown, alike)
            for alert in alerts:
                self._states[alert.optimizer].take_alert(alert)

    def close(self) -> None:
        """Stop listening and free the port; waits up to half a second for the server's thread to see it."""
        _listening.discard(self)
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def collect(self) -> Iterable[Metric]:
        """The samples of a scrape, for prometheus-client."""
        if self._run is None:
            return []
        health = self._health()
        with self._lock:
            # Made whole under the lock and rendered without it: a slow scraper never holds up a write.
            return families(self._run, health, self._states, self._modules_dropped, time.time())

    def let_go_in_child(self) -> None:
        """Close what a forked child inherited; the server's thread lives in the parent alone."""
        if self._server is not None:
            self._server.let_go_in_child()
            self._server = None


_listening: weakref.WeakSet[Prometheus] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A forked worker would keep the port: scrapes of it hang, and a restart finds it in use."""
    for sink in tuple(_listening):
        sink.let_go_in_child()
    _listening.clear()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
