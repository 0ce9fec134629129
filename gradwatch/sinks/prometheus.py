"""An endpoint that a Prometheus server scrapes."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gradwatch.errors import ArgumentError, SinkError
from gradwatch.monitoring.metrics import METRICS, PREFIX
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.exposition import BOUNDS, OptimizerState

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

    MOST_MODULES = 200

    def __init__(self, port: int = 19109, addr: str = "127.0.0.1") -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ArgumentError(f"The Prometheus port is {port!r}, but a number from 1 to 65535 was expected.")
        self._port = port
        self._addr = addr
        self._lock = threading.Lock()
        self._states: dict[str, OptimizerState] = {}
        self._shown: dict[str, tuple[str, ...]] = {}
        self._dropped_modules = 0
        self._run: RunInfo | None = None
        self._health: Callable[[], Health] = Health
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Listen.

        Raises:
            SinkError: the port is in use, or the address is not this machine's.
        """
        from prometheus_client import CollectorRegistry, start_http_server

        self._run, self._health = run, health
        self._states = {name: OptimizerState() for name in run.optimizers}
        self._choose_modules(run)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(self._port, self._addr, registry)
        except OSError as error:
            raise SinkError(
                f"Prometheus cannot listen on {self._addr}:{self._port} ({error.strerror}): "
                "end what uses the port, or give another one."
            ) from error
        _close_in_children(self)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Set the state that the next scrape reads."""
        with self._lock:
            for record in records:
                self._states[record.optimizer].take(record)
            for alert in alerts:
                self._states[alert.optimizer].take_alert(alert)

    def close(self) -> None:
        """Stop listening and free the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            if self._thread is not None:
                self._thread.join()
            self._server = self._thread = None

    def collect(self) -> Iterator[Metric]:
        """The samples of a scrape, for prometheus-client."""
        run = self._run
        if run is None:
            return
        with self._lock:
            yield from self._families(run)

    def _choose_modules(self, run: RunInfo) -> None:
        """Module names come from users and their number has no bound; series must have one."""
        room = self.MOST_MODULES
        for optimizer, modules in run.modules.items():
            self._shown[optimizer] = modules[:room]
            self._dropped_modules += len(modules) - len(self._shown[optimizer])
            room -= len(self._shown[optimizer])

    def _families(self, run: RunInfo) -> Iterator[Metric]:
        health = self._health()
        base = (run.run, str(run.rank))
        yield _family("build_info", [((run.gradwatch, run.python, run.torch), 1)])
        for name, value in (
            ("run_info", 1.0),
            ("training_active", 1.0),
            ("overhead_seconds", health.overhead_seconds),
            ("dropped_records", health.dropped_records),
            ("modules_dropped", self._dropped_modules),
        ):
            yield _family(name, [(base, value)])
        yield _family("sink_errors", [((*base, sink), count) for sink, count in health.sink_errors.items()])
        states = [((*base, name), state) for name, state in self._states.items()]
        yield from _optimizer_families(states)
        yield from self._module_families(states)
        yield from _alert_families(states)

    def _module_families(self, states: _States) -> Iterator[Metric]:
        norms = [
            ((*labels, name), state.newest.modules[name])
            for labels, state in states
            if state.newest is not None
            for name in self._shown.get(labels[-1], ())
            if name in state.newest.modules
        ]
        yield _family("module_grad_norm_before", [(labels, norm.norm_before) for labels, norm in norms])
        yield _family("module_grad_norm_after", [(labels, norm.norm_after) for labels, norm in norms])
        counts = [
            ((*labels, name), state.module_nonfinite[name])
            for labels, state in states
            for name in self._shown.get(labels[-1], ())
        ]
        yield _family("module_nonfinite_steps", counts)


_States = Sequence[tuple[tuple[str, ...], OptimizerState]]


def _family(name: str, samples: Sequence[tuple[tuple[str, ...], float]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    metric = METRICS[name]
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family: Metric = make(PREFIX + name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


def _optimizer_families(states: _States) -> Iterator[Metric]:
    yield _family("steps", [(labels, state.steps) for labels, state in states])
    yield _family("clipped_steps", [(labels, state.clipped) for labels, state in states])
    yield _family("skipped_steps", [(labels, state.skipped) for labels, state in states])
    yield _family("nonfinite_steps", [(labels, state.nonfinite) for labels, state in states])
    newest = [(labels, state.newest) for labels, state in states if state.newest is not None]
    yield _family("last_step_timestamp_seconds", [(labels, record.time) for labels, record in newest])
    yield _family("grad_norm_before", [(labels, record.norm_before) for labels, record in newest])
    yield _family("grad_norm_after", [(labels, record.norm_after) for labels, record in newest])
    yield _family("clip_ratio", [(labels, record.clip_ratio) for labels, record in newest])
    limits = [(labels, float("nan") if r.max_norm is None else r.max_norm) for labels, r in newest]
    yield _family("clip_max_norm", limits)
    now = time.time()
    yield _family("grad_norm_before_window_max", [(labels, state.window.at(now)) for labels, state in states])
    yield _histogram(states)


def _histogram(states: _States) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    metric = METRICS["grad_norm_before_distribution"]
    family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
    for labels, state in states:
        total = 0
        buckets = []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), state.buckets, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(labels, buckets, state.finite_sum)
    return family


def _alert_families(states: _States) -> Iterator[Metric]:
    active = [((*labels, *key), float(on)) for labels, state in states for key, on in state.active.items()]
    yield _family("alert_active", active)
    yield _family("alerts", [((*labels, *key), n) for labels, state in states for key, n in _fired(state)])


# Shown at 0 before they first fire: a counter that is first seen at 1 has had no increase.
_BUILT_IN = (
    ("nonfinite", "critical"),
    ("explosion", "critical"),
    ("zero", "critical"),
    ("clip-broken", "critical"),
)


def _fired(state: OptimizerState) -> Iterator[tuple[tuple[str, str], int]]:
    for key in dict.fromkeys((*_BUILT_IN, *state.fired)):
        yield key, state.fired[key]


def _close_in_children(sink: Prometheus) -> None:
    """A forked worker inherits the listening socket: scrapes would hang, and a restart would find it in use."""
    reference = weakref.ref(sink)

    def close_socket() -> None:
        alive = reference()
        if alive is not None and alive._server is not None:
            alive._server.socket.close()

    os.register_at_fork(after_in_child=close_socket)
