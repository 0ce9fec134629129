"""An endpoint that a Prometheus server scrapes."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.access import Access
from gradwatch.sinks.discovery import Announcement, as_target
from gradwatch.sinks.endpoint import Endpoint
from gradwatch.sinks.exposed import Exposed
from gradwatch.sinks.losses import reason_of
from gradwatch.sinks.pushing import over, push

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["Prometheus"]

log = logging.getLogger("gradwatch")


class Prometheus:
    """Serves the metrics of ``gradwatch.monitoring.metrics`` at ``http://{addr}:{port}/metrics``.

    Of several ranks, each its own process, rank 0 alone listens; with ``discovery`` every rank does, at the port
    plus its local rank.

    Args:
        port: TCP port; 0 takes one that is free, and says which in the log and as ``url``.
        addr: address to listen on; only this machine reaches the default.
        certfile: certificate of the server, for TLS, PEM.
        keyfile: its key, where it is not in the same file.
        client_cafile: each client must show a certificate that one of these has signed.
        username: asked for by basic auth.
        password: asked for with it.
        discovery: folder in which a file tells where this process listens, as ``file_sd_configs`` reads it.
        pushgateway: URL to which the last state is pushed when tracking ends.

    Raises:
        ArgumentError: the port is none, or an argument is given without the one that it needs.
    """

    def __init__(
        self,
        port: int = 19109,
        addr: str = "127.0.0.1",
        *,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        client_cafile: str | os.PathLike[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        discovery: str | os.PathLike[str] | None = None,
        pushgateway: str | None = None,
    ) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536:
            raise ArgumentError(f"The Prometheus port is {port!r}, but a number from 0 to 65535 was expected.")
        if (username is None) != (password is None):
            raise ArgumentError("Of username and password only one was given: give both, or none.")
        if certfile is None and (keyfile is not None or client_cafile is not None):
            raise ArgumentError("TLS was asked for without a certificate: give certfile too.")
        self._port = port
        self._addr = addr
        certfile, keyfile, client_cafile = map(_as_path, (certfile, keyfile, client_cafile))
        self._access = Access(certfile, keyfile, client_cafile, username, password)
        self._discovery = None if discovery is None else Path(discovery)
        self._pushgateway = pushgateway
        self._run: RunInfo | None = None
        self._exposed: Exposed | None = None
        self._server: Endpoint | None = None
        self._announcement: Announcement | None = None
        self._registry: CollectorRegistry | None = None
        self._is_over = False

    @property
    def url(self) -> str | None:
        """Where the metrics are; None where nothing listens."""
        if self._server is None:
            return None
        target = as_target(self._addr, self._server.server_address[1])
        return f"{self._access.scheme}://{target}/metrics"

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Listen.

        Raises:
            SinkError: the port is in use, the address is not this machine's, or a file cannot be read or written.
        """
        from prometheus_client import CollectorRegistry

        if run.rank != 0 and self._discovery is None:
            return
        self._run, self._exposed, self._is_over = run, Exposed(run, health), False
        # A registry of its own: the user's own metrics stay where they are.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        self._server = self._listening(registry)
        _listening.add(self)
        try:
            self._server.begin()
            self._announce(self._server)
        except BaseException:
            self._stop()
            raise
        # Last: a run that has not begun leaves at the gateway what one before it has left there.
        self._registry = registry

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Set the state that the next scrape reads."""
        if self._exposed is not None:
            self._exposed.take(records, alerts)

    def close(self) -> None:
        """Push the last state where that is wanted, stop listening and free the port.

        Waits for the server's thread to see it, half a second at most.

        Raises:
            SinkError: the Pushgateway does not take it.
        """
        self._is_over = True
        run, registry, self._registry = self._run, self._registry, None
        try:
            if self._pushgateway is not None and run is not None and registry is not None:
                push(self._pushgateway, registry, run)
        finally:
            self._stop()

    def _stop(self) -> None:
        _listening.discard(self)
        try:
            if self._announcement is not None:
                self._announcement.withdraw()
        finally:
            if self._server is not None:
                self._server.end()
        # Only now: a second close ends what a first one, interrupted, has left.
        self._announcement = self._server = None

    def _listening(self, registry: CollectorRegistry) -> Endpoint:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        port = self._port
        if port and self._discovery is not None:
            port += _local_rank()
        where = f"Prometheus cannot listen on {self._addr}:{port}"
        try:
            tls = self._access.context()
        except OSError as error:
            raise SinkError(
                f"{where} by TLS ({reason_of(error)}): look at certfile, keyfile and client_cafile."
            ) from error
        address, text = (self._addr, port), partial(generate_latest, registry)
        try:
            return Endpoint(address, CONTENT_TYPE_LATEST, text, self._access, tls)
        except (OSError, OverflowError) as error:
            raise SinkError(
                f"{where} ({reason_of(error)}): end what uses the port, give another one, or port=0 for any that "
                "is free."
            ) from error

    def _announce(self, server: Endpoint) -> None:
        target = as_target(self._addr, server.server_address[1])
        if self._discovery is not None:
            announcement = Announcement(self._discovery, target, self._access.scheme)
            try:
                announcement.make()
            except OSError as error:
                raise SinkError(
                    f"The folder {str(self._discovery)!r} cannot be written ({reason_of(error)}): give as "
                    "discovery a folder that is yours."
                ) from error
            self._announcement = announcement
        if self._port == 0:
            log.warning("Prometheus took a free port: the metrics of this run are at %s.", self.url)

    def collect(self) -> Iterable[Metric]:
        """The samples of a scrape, for prometheus-client."""
        if self._exposed is None:
            return []
        shown = self._exposed.families()
        return over(shown) if self._is_over else shown

    def let_go_in_child(self) -> None:
        """Close what a forked child inherited; the server's thread lives in the parent alone."""
        if self._server is not None:
            self._server.let_go_in_child()
            self._server = None


def _as_path(given: str | os.PathLike[str] | None) -> str | None:
    return None if given is None else os.fspath(given)


def _local_rank() -> int:
    """The rank among those of this machine, which torchrun and its likes put into the environment."""
    rank = os.environ.get("LOCAL_RANK", "0")
    return int(rank) if rank.isdecimal() else 0


_listening: weakref.WeakSet[Prometheus] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A forked worker would keep the port: scrapes of it hang, and a restart finds it in use."""
    for sink in tuple(_listening):
        sink.let_go_in_child()
    _listening.clear()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
