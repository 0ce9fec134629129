"""Metrics and alerts by OTLP, the protocol of OpenTelemetry, through its official SDK."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gradwatch.blocks import Steps
from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.monitoring.metrics import METRICS, PREFIX, Metric
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.curves import curves
from gradwatch.sinks.exposed import Exposed
from gradwatch.sinks.exposition import BOUNDS
from gradwatch.sinks.labels import label

__all__ = ["OpenTelemetry"]


class OpenTelemetry:
    """Sends the metrics of ``gradwatch.monitoring.metrics``, and each event of an alert as a log record.

    In place of the metric ``alert_info`` there are the log records. What else the SDK can be told is told by its
    own environment variables: headers, certificates, timeouts, ``OTEL_METRIC_EXPORT_INTERVAL`` and the resource.

    Args:
        endpoint: where OTLP is taken over HTTP, such as ``"http://localhost:4318"``; None: what
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.
    """

    # As many alerts wait while nobody takes them; then the oldest are lost.
    MOST_WAITING = 1000
    # The SDK gives up an export after ten seconds of its own accord.
    PATIENCE_SECONDS = 25.0

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._alerts: deque[Alert] = deque(maxlen=self.MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._said = _Said()
        self._why = ""

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Begin to send.

        Raises:
            MissingExtraError: the SDK or its exporter is not installed.
            SinkError: the interval of the environment is none.
        """
        self._seconds = _interval()
        try:
            self._log_exporter, metric_exporter = exporters = _exporters(self._endpoint)
        except ImportError as error:
            raise MissingExtraError("OpenTelemetry", "opentelemetry-exporter-otlp-proto-http", "otlp") from error
        self._run, self._exposed = run, Exposed(run, health)
        self._shown: dict[str, Any] = {}
        self._ended, self._woken = False, threading.Event()
        resource = _resource(run)
        self._provide_metrics(metric_exporter, resource)
        self._provide_logs(resource)
        self._said.listen(exporters)
        self._thread = threading.Thread(target=self._send_now_and_then, name="gradwatch-otlp", daemon=True)
        self._thread.start()

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Take in what is sent next; alerts are sent at once."""
        self._exposed.take(records, alerts)
        for shown in curves(Steps.of(records)):
            norms = shown.norms[:, 0]
            labels = dict(
                zip(METRICS["grad_norm_before_distribution"].labels, self._who(shown.optimizer), strict=True)
            )
            for norm in norms[np.isfinite(norms)].tolist():
                self._histogram.record(norm, labels)
        self._alerts.extend(alerts)
        if alerts:
            self._woken.set()
        self._raise_what_failed()

    def close(self) -> None:
        """Send what is left.

        Raises:
            SinkError: it was not taken.
        """
        if self._thread is None:
            return
        self._ended = True
        self._woken.set()
        self._thread.join(self.PATIENCE_SECONDS)
        # Only now: a second close ends what a first one, interrupted, has left.
        self._thread = None
        self._said.stop()
        self._log_exporter.shutdown()
        self._reader.shutdown()
        if self._alerts:
            raise SinkError(f"OpenTelemetry could not send {len(self._alerts)} alerts ({self._why}).")
        self._raise_what_failed()

    def _who(self, optimizer: str) -> tuple[str, str, str]:
        return label(self._run.run), str(self._run.rank), label(optimizer)

    def _raise_what_failed(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _provide_metrics(self, exporter: Any, resource: Any) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        self._export, exporter.export = exporter.export, self._export_metrics
        # Never by itself: a reader with an interval starts its thread again in every forked child, which would
        # send the run once more, as it stood when it was forked.
        self._reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        provider = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)
        meter = provider.get_meter("gradwatch", self._run.gradwatch)
        for metric in METRICS.values():
            name = f"gradwatch.{metric.name}"
            if metric.kind == "histogram":
                self._histogram = meter.create_histogram(
                    name, description=metric.help, explicit_bucket_boundaries_advisory=BOUNDS
                )
            elif metric.name != "alert_info":
                counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
                create = counter if metric.kind == "counter" else gauge
                create(name, [self._observer(metric)], description=metric.help)

    def _observer(self, metric: Metric) -> Callable[[object], Iterable[Any]]:
        from opentelemetry.metrics import Observation

        def observe(_: object) -> Iterable[Any]:
            # What is not finite the SDK would leave out as well, and warn of it each time.
            samples = self._shown[PREFIX + metric.name].samples
            return [Observation(one.value, one.labels) for one in samples if math.isfinite(one.value)]

        return observe

    def _export_metrics(self, *arguments: Any, **named: Any) -> Any:
        """For the reader of the SDK, which looks at no result."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        result = self._export(*arguments, **named)
        self._count_unless(result is MetricExportResult.SUCCESS, "metrics")
        return result

    def _count_unless(self, taken: bool, what: str) -> None:
        """The thread of the sinks raises it, where it is counted, and told of once."""
        if not taken:
            self._why = self._said.why()
            where = self._endpoint or "the endpoint of its environment"
            self._error = SinkError(
                f"OpenTelemetry: {where} takes no {what} ({self._why}): look whether a collector listens there."
            )

    def _provide_logs(self, resource: Any) -> None:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

        # Held here until they are sent: a failure must not lose them, and the SDK's own batches would.
        self._held = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(self._held))
        self._logger = provider.get_logger("gradwatch", self._run.gradwatch)

    def _send_now_and_then(self) -> None:
        self._said.thread = threading.get_ident()
        ended = False
        while not ended:
            self._woken.wait(self._seconds)
            self._woken.clear()
            ended = self._ended
            try:
                self._send_alerts()
                self._shown = {family.name: family for family in self._exposed.families()}
                self._reader.collect()
            except Exception as error:
                self._error = error

    def _send_alerts(self) -> None:
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        sending = [self._alerts.popleft() for _ in range(len(self._alerts))]
        for alert in sending:
            self._logger.emit(_log_record(self._run, alert))
        records = self._held.get_finished_logs()
        self._held.clear()
        if records and self._log_exporter.export(records) is not LogRecordExportResult.SUCCESS:
            self._alerts.extendleft(reversed(sending))
            self._count_unless(False, "alerts")


class _Said(logging.Filter):
    """What the SDK says of our exports, kept in place of said: it would say it with each, once a minute for weeks.

    Attributes:
        thread: in which they are ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = 0
        self._loggers: list[logging.Logger] = []
        self._words: list[str] = []

    def why(self) -> str:
        """What was said first since it was last asked: the reason; then come retries, and that they are over."""
        words, self._words = self._words, []
        return words[0] if words else "no reason was given"

    def listen(self, exporters: Iterable[object]) -> None:
        """To the loggers of these."""
        self._loggers = [logging.getLogger(type(exporter).__module__) for exporter in exporters]
        for logger in self._loggers:
            logger.addFilter(self)

    def stop(self) -> None:
        """Let the SDK speak again."""
        for logger in self._loggers:
            logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is said."""
        if record.thread != self.thread:
            return True
        self._words.append(record.getMessage()[:300].rstrip(" ,."))
        return False


def _interval() -> float:
    """Between two exports of metrics, in seconds."""
    given = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "60000")
    try:
        seconds = float(given) / 1000
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds <= threading.TIMEOUT_MAX:
        raise SinkError(f"OTEL_METRIC_EXPORT_INTERVAL is {given!r}, but a number of milliseconds was expected.")
    return seconds


def _exporters(endpoint: str | None) -> tuple[Any, Any]:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    if endpoint is None:
        return OTLPLogExporter(), OTLPMetricExporter()
    base = endpoint.rstrip("/")
    return OTLPLogExporter(f"{base}/v1/logs"), OTLPMetricExporter(f"{base}/v1/metrics")


def _resource(run: RunInfo) -> Any:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = Resource.create({"service.name": "gradwatch", "service.instance.id": f"{run.run} {run.rank}"})
    # What the user's environment says of it goes before.
    return ours.merge(OTELResourceDetector().detect())


def _log_record(run: RunInfo, alert: Alert) -> Any:
    from opentelemetry._logs import LogRecord, SeverityNumber

    level = "INFO" if alert.state == "resolved" else "ERROR" if alert.severity == "critical" else "WARN"
    said = {
        "run": run.run,
        "rank": run.rank,
        **{name: getattr(alert, name) for name in ("rule", "severity", "state", "optimizer", "module", "step")},
        "value": alert.value,
        "threshold": alert.threshold,
    }
    if alert.cause is not None:
        cause = alert.cause
        said |= {"cause.kind": cause.kind, "cause.where": cause.where, "cause.remedy": cause.remedy}
        said |= {f"cause.evidence.{name}": value for name, value in cause.evidence.items()}
    return LogRecord(
        timestamp=None if math.isnan(alert.time) else int(alert.time * 1e9),
        severity_number=SeverityNumber[level],
        severity_text=level,
        body=label(str(alert)),
        event_name="gradwatch.alert",
        attributes={
            f"gradwatch.{name}": label(value) if isinstance(value, str) else value
            for name, value in said.items()
            if value is not None
        },
    )
