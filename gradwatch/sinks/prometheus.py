"""An endpoint that a Prometheus server scrapes."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.endpoint import Endpoint
from gradwatch.sinks.exposed import Exposed

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
        self._exposed: Exposed | None = None
        self._server: Endpoint | None = None

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Listen.

        Raises:
            SinkError: the port is in use, or the address is not this machine's.
        """
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        self._exposed = Exposed(run, health)
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
        if self._exposed is not None:
            self._exposed.take(records, alerts)

    def close(self) -> None:
        """Stop listening and free the port; waits up to half a second for the server's thread to see it."""
        _listening.discard(self)
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def collect(self) -> Iterable[Metric]:
        """The samples of a scrape, for prometheus-client."""
        return [] if self._exposed is None else self._exposed.families()

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
