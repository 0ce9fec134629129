import math
import os
import socket
import subprocess
import urllib.request
import warnings

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from gradwatch.errors import ArgumentError, SinkError
from gradwatch.monitoring.metrics import METRICS, full_name
from gradwatch.records import Cause, GroupNorms, Health
from gradwatch.sinks import Prometheus, board
from gradwatch.sinks.endpoint import Endpoint
from tests.made_up import alert, record, run_info
from tests.monitoring.programs import program


@pytest.fixture(autouse=True)
def rendered_anew_for_each_scrape(monkeypatch):
    monkeypatch.setattr(Endpoint, "TEXT_LASTS_SECONDS", 0.0)


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def sink(port):
    sink = Prometheus(port)
    sink.open(run_info(), lambda: Health(1.5, 2, {"Jsonl": 3}))
    yield sink
    sink.close()


def scrape(sink):
    with urllib.request.urlopen(f"http://127.0.0.1:{sink._port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def samples(text):
    return {
        (
            sample.name,
            *sorted((k, v) for k, v in sample.labels.items() if k not in ("run", "rank", "optimizer")),
        ): (sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_of_the_table_is_shown_and_parses(sink):
    sink.write([record()], [alert()])
    names = {name for name, *_ in samples(scrape(sink))}
    expected = {full_name(name) for name, metric in METRICS.items() if metric.kind != "histogram"}
    assert expected <= names
    assert "gradwatch_grad_norm_before_distribution_bucket" in names


def test_counters_are_zero_before_the_first_step(sink):
    shown = samples(scrape(sink))
    for name in ("steps", "clipped_steps", "skipped_steps", "nonfinite_steps"):
        assert shown[(full_name(name),)] == 0
    assert shown["gradwatch_alerts_total", ("rule", "zero"), ("severity", "critical")] == 0
    assert shown["gradwatch_module_nonfinite_steps_total", ("module", "mlp")] == 0


def test_a_step_is_counted_and_its_norms_are_shown(sink):
    sink.write([record(1, 5.0, 1.0, clipped=True), record(2, 0.5, 0.25, max_norm=0.3)], [alert()])
    shown = samples(scrape(sink))
    assert shown[("gradwatch_grad_norm_after",)] == 0.25
    assert shown[("gradwatch_clip_ratio",)] == 0.5
    assert shown[("gradwatch_clip_max_norm",)] == 0.3
    assert shown["gradwatch_module_grad_norm_before", ("module", "mlp")] == 0.5
    assert shown[("gradwatch_steps_total",)] == 2
    assert shown[("gradwatch_clipped_steps_total",)] == 1
    assert shown[("gradwatch_grad_norm_before",)] == 0.5
    assert shown["gradwatch_module_grad_norm_after", ("module", "mlp")] == 0.25
    assert shown["gradwatch_alert_active", ("module", "mlp"), ("rule", "zero"), ("severity", "critical")] == 1
    assert shown[("gradwatch_overhead_seconds_total",)] == 1.5
    assert shown["gradwatch_sink_errors_total", ("sink", "Jsonl")] == 3
    sink.write([], [alert("resolved", step=3)])
    shown = samples(scrape(sink))
    assert shown["gradwatch_alert_active", ("module", "mlp"), ("rule", "zero"), ("severity", "critical")] == 0


def test_nan_does_not_poison_the_histogram(sink):
    sink.write([record(1, math.nan, math.nan, nonfinite=("mlp.weight",)), record(2, 2.0, 1.0)], [])
    shown = samples(scrape(sink))
    assert shown[("gradwatch_grad_norm_before_distribution_sum",)] == 2.0
    assert shown["gradwatch_grad_norm_before_distribution_bucket", ("le", "+Inf")] == 1
    assert shown[("gradwatch_nonfinite_steps_total",)] == 1
    assert shown["gradwatch_module_nonfinite_steps_total", ("module", "mlp")] == 1


def test_names_of_users_are_escaped_and_capped(port):
    names = ('a"b\\c\n', *(f"m{i}" for i in range(250)))
    sink = Prometheus(port)
    sink.open(run_info(names), Health)
    try:
        sink.write([record(modules={name: GroupNorms(1.0, 1.0) for name in names})], [])
        shown = samples(scrape(sink))
    finally:
        sink.close()
    assert shown["gradwatch_module_grad_norm_after", ("module", 'a"b\\c\n')] == 1.0
    assert sum(name == "gradwatch_module_grad_norm_after" for name, *_ in shown) == 200
    assert shown[("gradwatch_modules_dropped",)] == 51


def test_a_port_in_use_is_one_sentence_and_closing_frees_it(sink, port):
    with pytest.raises(SinkError, match=f"cannot listen on 127.0.0.1:{port}"):
        Prometheus(port).open(run_info(), Health)
    sink.close()
    again = Prometheus(port)
    again.open(run_info(), Health)
    again.close()


@pytest.mark.parametrize("bad", [-1, 65536, "19109", True])
def test_a_bad_port_is_refused(bad):
    with pytest.raises(ArgumentError, match="port"):
        Prometheus(bad)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_lets_go_of_the_socket(sink):
    listening = sink._server.socket
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; DataLoader's workers do it all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            # Would wait for a thread that the child does not have.
            sink.close()
            os._exit(0 if listening.fileno() == -1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "gradwatch_build_info" in scrape(sink)


def test_promtool_finds_no_fault(sink):
    sink.write([record()], [alert()])
    result = subprocess.run(
        [program("promtool"), "check", "metrics"], input=scrape(sink), text=True, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_it_is_not_reached_from_outside_and_leaves_the_default_registry_alone(sink):
    assert sink._server.server_address[0] == "127.0.0.1"
    assert not any(family.name.startswith("gradwatch") for family in REGISTRY.collect())


def test_no_norm_is_shown_as_zero_before_it_was_measured(sink):
    shown = samples(scrape(sink))
    for name in (
        "grad_norm_before",
        "grad_norm_after",
        "clip_ratio",
        "clip_max_norm",
        "grad_norm_before_window_max",
    ):
        assert math.isnan(shown[(full_name(name),)])
    assert math.isnan(shown["gradwatch_module_grad_norm_after", ("module", "mlp")])
    assert shown[("gradwatch_last_step_timestamp_seconds",)] == run_info().time
    assert shown[("gradwatch_training_active",)] == 1


def test_no_series_appears_with_the_first_step_and_the_first_alert_of_an_optimizer(sink):
    before = set(samples(scrape(sink)))
    sink.write([record(clipped=True, nonfinite=("mlp.weight",))], [alert(module=None)])
    words = {key for key in set(samples(scrape(sink))) - before if key[0] == "gradwatch_alert_info"}
    assert set(samples(scrape(sink))) - words == before


def test_an_alert_is_shown_in_the_words_that_every_sink_has_while_it_fires_and_five_minutes_longer(
    sink, monkeypatch
):
    def shown_at(seconds):
        monkeypatch.setattr("gradwatch.sinks.exposed.time.time", lambda: 1_700_000_000.0 + seconds)
        return [dict(key[1:])["words"] for key in samples(scrape(sink)) if key[0] == "gradwatch_alert_info"]

    cause = Cause("saturated-tanh", "mlp.2", {"share": 0.99}, 'Scale "it" down.\nNow.')
    fires, explained, over = alert(), alert("explained", 2, cause=cause), alert("resolved", 3)
    assert shown_at(0) == []
    said = []
    for step, one in enumerate((fires, explained, over), start=1):
        sink.write([record(step)], [one])
        said.append(str(one))
        assert shown_at(100) == ["\n".join(said)]
    assert shown_at(399) == ["\n".join(said)]
    assert shown_at(401) == []


def test_a_series_of_several_modules_says_what_still_fires(port, monkeypatch):
    monkeypatch.setattr(board, "MOST_NAMED", 0)
    sink = Prometheus(port)
    sink.open(run_info(tuple(f"m{i}" for i in range(202))), Health)
    first, second = alert(module="m200"), alert(module="m201")
    try:
        seen = []
        for one in (first, second, alert("resolved", 2, module="m201")):
            sink.write([], [one])
            (words,) = [dict(key[1:])["words"] for key in samples(scrape(sink)) if "words" in dict(key[1:])]
            seen.append(words)
    finally:
        sink.close()
    assert seen == [str(first), str(second), str(first)]


def test_a_scrape_takes_nothing_away_from_the_next(sink, monkeypatch):
    sink.write([record(1, 9.0, 1.0)], [])
    monkeypatch.setattr("gradwatch.sinks.exposed.time.time", lambda: 1_700_000_030.0)
    first, second = samples(scrape(sink)), samples(scrape(sink))
    assert first[("gradwatch_grad_norm_before_window_max",)] == 9.0
    assert second[("gradwatch_grad_norm_before_window_max",)] == 9.0


def test_a_module_counts_as_active_until_each_of_those_left_out_is_resolved(port, monkeypatch):
    monkeypatch.setattr(board, "MOST_NAMED", 0)
    sink = Prometheus(port)
    sink.open(run_info(tuple(f"m{i}" for i in range(202))), Health)
    key = ("gradwatch_alert_active", ("module", "(other)"), ("rule", "zero"), ("severity", "critical"))
    try:
        seen = []
        for state, module in (("firing", "m200"), ("firing", "m201"), ("resolved", "m200"), ("resolved", "m201")):
            sink.write([], [alert(state, module=module)])
            seen.append(samples(scrape(sink))[key])
    finally:
        sink.close()
    assert seen == [1, 1, 1, 0]


def test_a_run_that_is_opened_again_begins_at_zero(sink):
    sink.write([record()], [])
    sink.close()
    sink.close()
    sink.open(run_info(), Health)
    assert samples(scrape(sink))[("gradwatch_steps_total",)] == 0


def test_what_lies_beneath_the_lines_of_the_report_keeps_its_name_in_an_alert_up_to_a_bound(sink):
    deep = [f"mlp.h.{i}" for i in range(60)]
    sink.write([], [alert(module=name) for name in deep])
    shown = {dict(key[1:])["module"] for key in samples(scrape(sink)) if key[0] == "gradwatch_alert_active"}
    assert shown == {"", *deep[:50], "(other)"}


@pytest.mark.parametrize("name", ["half \ud800 a pair", "m" * 1_000_000, "\x1b[31mred\x07", "\0"])
def test_no_name_breaks_a_scrape(port, name):
    sink = Prometheus(port)
    sink.open(run_info((name, name + "x")), Health)
    try:
        norms = {name: GroupNorms(1.0, 1.0), name + "x": GroupNorms(2.0, 2.0)}
        sink.write([record(modules=norms)], [alert(module=name, message=name)])
        page = scrape(sink)
        shown = samples(page)
    finally:
        sink.close()
    norms = {key[1][1]: value for key, value in shown.items() if key[0] == "gradwatch_module_grad_norm_after"}
    assert sorted(norms.values()) == [1.0, 2.0]
    assert all(len(label) < 1100 and label.isprintable() for label in norms)
    assert len(page) < 100_000
