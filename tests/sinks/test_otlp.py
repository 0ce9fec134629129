import logging
import math
import os
import socket
import sys
import threading
import time
import warnings
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.monitoring.metrics import METRICS
from gradwatch.records import Cause, Health
from gradwatch.sinks import OpenTelemetry
from gradwatch.sinks.fanout import Fanout
from tests.made_up import alert, record, run_info

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

DEAD = Cause("saturated-tanh", "mlp", {"share": 0.99}, "Scale it down.")


class Collector:
    """Takes OTLP over HTTP as a collector does, and keeps what came."""

    def __init__(self):
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        self.refuses = False
        self.exports = {"/v1/logs": [], "/v1/metrics": []}
        kinds = {"/v1/logs": ExportLogsServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
        self.came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refused = collector.refuses  # once: what was refused is not kept, though a test goes on meanwhile
                self.send_response(400 if refused else 200)
                self.end_headers()
                if not refused:
                    with collector.came:
                        collector.exports[self.path].append(kinds[self.path].FromString(body))
                        collector.came.notify_all()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def metrics(self):
        """By name, of the newest export."""
        (resource,) = self.exports["/v1/metrics"][-1].resource_metrics
        return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}

    def logs(self):
        return [
            record
            for export in self.exports["/v1/logs"]
            for resource in export.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def sink(collector):
    sink = OpenTelemetry(collector.endpoint)
    sink.open(run_info(), lambda: Health(1.5, 2, {"Jsonl": 3}))
    yield sink
    collector.refuses = False
    sink.close()


def attributes(point):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in point.attributes}


def value(metric, **labels):
    (point,) = [
        point
        for point in getattr(metric, metric.WhichOneof("data")).data_points
        if labels.items() <= attributes(point).items()
    ]
    return getattr(point, point.WhichOneof("value"))


def test_every_metric_of_the_table_arrives_with_its_labels(sink, collector):
    sink.write([record(1, 5.0, 1.0, clipped=True, time=time.time())], [alert()])
    sink.close()
    metrics = collector.metrics()
    assert set(metrics) == {f"gradwatch.{name}" for name in METRICS} - {"gradwatch.alert_info"}
    for name, metric in metrics.items():
        data = getattr(metric, metric.WhichOneof("data"))
        expected = METRICS[name.removeprefix("gradwatch.")]
        assert {*attributes(data.data_points[0])} == {*expected.labels}
        kind = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}[expected.kind]
        assert metric.WhichOneof("data") == kind
        assert kind != "sum" or data.is_monotonic


def test_numbers_are_those_of_the_steps(sink, collector):
    sink.write([record(1, 5.0, 1.0, clipped=True), record(2, math.nan, math.nan, nonfinite=("mlp.weight",))], [])
    sink.write([record(3, 0.5, 0.25)], [])
    sink.close()
    metrics = collector.metrics()
    assert value(metrics["gradwatch.steps"]) == 3
    assert value(metrics["gradwatch.nonfinite_steps"]) == 1
    assert value(metrics["gradwatch.grad_norm_after"]) == 0.25
    assert value(metrics["gradwatch.module_grad_norm_before"], module="mlp") == 0.5
    assert value(metrics["gradwatch.sink_errors"], sink="Jsonl") == 3
    (point,) = metrics["gradwatch.grad_norm_before_distribution"].histogram.data_points
    assert (point.count, point.sum) == (2, 5.5)
    assert len(point.explicit_bounds) == 29


def test_what_is_not_finite_is_left_out_without_a_word(sink, collector, caplog):
    sink.write([record(1, math.nan, math.nan, max_norm=None, nonfinite=("mlp.weight",))], [])
    sink.close()
    assert "gradwatch.grad_norm_before" not in collector.metrics()
    assert caplog.text == ""


def test_an_alert_is_a_log_record_at_once_with_its_cause(sink, collector):
    sink.write([], [alert(step=7, cause=DEAD, time=1_700_000_007.0)])
    with collector.came:
        assert collector.came.wait_for(collector.logs, 30)
    (said,) = collector.logs()
    assert said.body.string_value == str(alert(step=7, cause=DEAD, time=1_700_000_007.0))
    assert (said.severity_text, said.event_name) == ("ERROR", "gradwatch.alert")
    assert said.time_unix_nano == 1_700_000_007_000_000_000
    fields = attributes(said)
    assert fields["gradwatch.rule"] == "zero"
    assert fields["gradwatch.step"] == 7
    assert fields["gradwatch.cause.kind"] == "saturated-tanh"
    assert fields["gradwatch.cause.evidence.share"] == 0.99


def test_severity_is_that_of_the_log(sink, collector):
    sink.write([], [alert(severity="warning"), alert("resolved", 2, severity="warning")])
    sink.close()
    assert [said.severity_text for said in collector.logs()] == ["WARN", "INFO"]


def test_alerts_that_nobody_takes_are_sent_again_and_told_of_at_the_end(collector):
    collector.refuses = True
    lost, sink = OpenTelemetry(collector.endpoint), OpenTelemetry(collector.endpoint)
    for one in (lost, sink):
        one.open(run_info(), Health)
        one.write([], [alert(step=1), alert("resolved", 2)])
    with pytest.raises(SinkError, match=r"could not send 2 alerts \(.*code: 400"):
        lost.close()
    collector.refuses = False
    with suppress(SinkError):  # one export may have failed before that
        sink.close()
    assert [attributes(said)["gradwatch.step"] for said in collector.logs()] == [1, 2]


def test_where_nobody_listens_each_failure_is_counted_and_one_is_told_with_its_reason(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        fanout = Fanout([OpenTelemetry(f"http://127.0.0.1:{nobody.getsockname()[1]}")])
        fanout.open(run_info(), Health)
        until = time.monotonic() + 60
        while fanout.sink_errors["OpenTelemetry"] < 3 and time.monotonic() < until:
            fanout.put([record()], [])
            time.sleep(0.01)
        fanout.close()
    assert fanout.sink_errors["OpenTelemetry"] >= 3
    (said,) = caplog.records
    assert "takes no metrics (Failed to export metrics batch" in said.getMessage()
    logging.getLogger("opentelemetry.exporter.otlp.proto.http.metric_exporter").warning("heard again")
    assert len(caplog.records) == 2


def test_what_fails_in_its_thread_is_raised_where_it_is_counted(collector):
    def broken():
        raise ZeroDivisionError("of the test")

    sink = OpenTelemetry(collector.endpoint)
    sink.open(run_info(), broken)
    sink.write([], [alert()])
    with pytest.raises(ZeroDivisionError):
        sink.close()
    assert collector.logs()


def test_names_that_no_protocol_has_are_sent_all_the_same(sink, collector):
    sink.write([], [alert(module="half \ud800 a pair", message="\ud800" * 3)])
    sink.close()
    assert "half" in attributes(collector.logs()[0])["gradwatch.module"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_sends_nothing(sink, collector):
    sink.write([record()], [])
    with_it = threads_of_a_child()
    sink.close()
    # What other libraries start there is theirs.
    assert with_it == threads_of_a_child()


def threads_of_a_child() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(threading.active_count())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_it_is_a_service_with_a_name_and_each_rank_an_instance(sink, collector):
    sink.close()
    (resource,) = collector.exports["/v1/metrics"][-1].resource_metrics
    named = attributes(resource.resource)
    assert (named["service.name"], named["service.instance.id"]) == ("gradwatch", "test-1 0")


def test_the_environment_names_the_service(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=drivers")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    sink = OpenTelemetry()
    sink.open(run_info(), Health)
    sink.close()
    (resource,) = collector.exports["/v1/metrics"][-1].resource_metrics
    named = attributes(resource.resource)
    assert (named["service.name"], named["team"]) == ("nightly", "drivers")


def test_metrics_come_at_the_sdks_interval(collector, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    sink = OpenTelemetry(collector.endpoint)
    sink.open(run_info(), Health)
    try:
        with collector.came:
            assert collector.came.wait_for(lambda: len(collector.exports["/v1/metrics"]) >= 3, 30)
    finally:
        sink.close()


@pytest.mark.parametrize("interval", ["soon", "0", "-1", "nan", "inf"])
def test_an_interval_that_is_none_is_refused_in_a_sentence(interval, monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", interval)
    with pytest.raises(SinkError, match="a number of milliseconds was expected"):
        OpenTelemetry("http://127.0.0.1:1").open(run_info(), Health)


def test_without_the_sdk_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http._log_exporter", None)
    with pytest.raises(MissingExtraError, match=r"gradwatch\[otlp\]"):
        OpenTelemetry().open(run_info(), Health)
