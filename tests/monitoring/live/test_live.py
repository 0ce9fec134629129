"""From a training loop through Prometheus and Alertmanager to a pager."""

import subprocess
import time
from contextlib import ExitStack

import pytest

from gradwatch.monitoring.dashboard import expressions
from tests.monitoring.live.processes import HOST, free_port, running, wait_for
from tests.monitoring.live.scale import MINUTE
from tests.monitoring.live.servers import Pager, pushgateway, servers
from tests.monitoring.live.training import SCENARIOS, command
from tests.monitoring.programs import program

# Far more than it takes; a machine may be busy.
PATIENCE = 120


class Loop:
    """Six trainings that go wrong in one way each, all at a time."""

    def __init__(self, servers, pager, since):
        self.servers, self.pager, self.since = servers, pager, since
        self.muted = []

    def notified(self, status, **labels):
        """The alert with these labels as the pager got it, waited for."""
        return wait_for(lambda: self._found(status, labels), PATIENCE, f"{status} {labels}")

    def is_muted(self, **labels):
        """Whether Alertmanager has held back an alert with these labels."""
        return any(labels.items() <= seen.items() for seen in self.muted)

    def look(self):
        """Note what is muted now."""
        self.muted += [labels for labels, muted in self.servers.alerts() if muted]

    def _found(self, status, labels):
        self.look()
        found = [one for one in self.pager.got if one.status == status and labels.items() <= one.labels.items()]
        return found[0] if found else None


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    for name in ("prometheus", "prometheus-alertmanager", "prometheus-pushgateway"):
        program(name)
    ports = {scenario: free_port() for scenario in SCENARIOS}
    since = time.time()
    with ExitStack() as stack:
        pager = stack.enter_context(Pager())
        gateway = stack.enter_context(pushgateway())
        trainings = stack.enter_context(running(command(ports, f"http://{HOST}:{gateway}"), stdin=subprocess.PIPE))
        targets = {**ports, "pushgateway": gateway}
        del targets["short"]
        started = stack.enter_context(servers(tmp_path_factory.mktemp("servers"), targets, pager))
        usual = "gradwatch_steps_total > 50 and gradwatch_steps_total offset 2s"
        wait_for(lambda: len(started.query(usual)) == len(SCENARIOS) - 1, PATIENCE, "all trainings to be scraped")
        trainings.stdin.write(b"now\n")
        trainings.stdin.flush()
        yield Loop(started, pager, since)


# A push has a job of its own.
JOBS = {"short": "gradwatch"}

ARRIVES = {
    "explodes": (
        {"alertname": "GradwatchAlert", "rule": "explosion", "severity": "critical", "optimizer": "actor"},
        "! CRITICAL explosion, step ",
    ),
    "nan": (
        {"alertname": "GradwatchAlert", "rule": "nonfinite", "severity": "critical", "optimizer": "actor"},
        "! CRITICAL nonfinite",
    ),
    "dies": (
        {"alertname": "GradwatchAlert", "rule": "zero", "severity": "critical", "module": "mlp", "role": "root"},
        "saturated-tanh at mlp",
    ),
    "hangs": ({"alertname": "TrainingStalled", "severity": "warning", "optimizer": "actor"}, "trains nothing"),
    "killed": ({"alertname": "ExporterDown", "severity": "warning"}, "can no longer be scraped"),
    "short": (
        {"alertname": "GradwatchAlert", "rule": "explosion", "severity": "critical", "optimizer": "actor"},
        "! CRITICAL explosion, step ",
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_alert_arrives_with_its_labels_and_words_and_is_resolved(loop, scenario):
    labels, words = ARRIVES[scenario]
    fired = loop.notified("firing", job=JOBS.get(scenario, scenario), **labels)
    assert words in fired.annotations["summary"] + fired.annotations["description"]
    assert fired.receiver == ("pager" if labels["severity"] == "critical" else "team")
    assert fired.annotations["runbook_url"].startswith("file://")
    assert loop.notified("resolved", job=JOBS.get(scenario, scenario), **labels).labels == fired.labels


def test_a_root_mutes_what_follows_from_it(loop):
    loop.notified("resolved", job="dies", rule="zero")
    follows = {"job": "dies", "rule": "explosion", "role": "follows", "incident": "zero at mlp (actor)"}
    assert loop.is_muted(**follows)
    assert not any(follows.items() <= one.labels.items() for one in loop.pager.got)


@pytest.mark.parametrize(
    ("scenario", "alertname"),
    [("explodes", "ExplodingGradients"), ("nan", "NonFiniteGradients"), ("dies", "ZeroGradients")],
)
def test_what_the_run_says_itself_mutes_what_prometheus_sees_of_it(loop, scenario, alertname):
    loop.notified("resolved", job=JOBS.get(scenario, scenario), alertname="GradwatchAlert")
    assert loop.is_muted(job=JOBS.get(scenario, scenario), alertname=alertname)


def test_nobody_is_told_of_what_is_well(loop):
    for scenario in SCENARIOS:
        loop.notified("resolved", job=JOBS.get(scenario, scenario), **ARRIVES[scenario][0])
    told = {(one.labels["job"], one.labels["alertname"], one.labels.get("rule")) for one in loop.pager.got}
    expected = {
        (JOBS.get(job, job), labels["alertname"], labels.get("rule")) for job, (labels, _) in ARRIVES.items()
    }
    # Before it is known what the head's death led to, it may stand for itself.
    assert told - {("dies", "GradwatchAlert", "explosion")} == expected


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_of_the_dashboard_shows_something(loop, expression):
    loop.notified("firing", job="dies", rule="zero")
    for variable, value in (
        ("$__rate_interval", "4s"),
        ("$__range", f"{int(30 * MINUTE)}s"),
        ("$run", "dies|explodes"),
        ("$optimizer", ".*"),
        ("$module", ".*"),
    ):
        expression = expression.replace(variable, value)
    assert loop.servers.query_range(expression, loop.since)
