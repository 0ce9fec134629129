import re
import subprocess

import pytest

from gradwatch.judge.judge import Judge
from gradwatch.monitoring.alerting import RELAY, RULES
from gradwatch.monitoring.metrics import METRICS, full_name
from gradwatch.monitoring.rules import alerting_rules
from gradwatch.rules import default_rules
from tests.monitoring.cases import CASES
from tests.monitoring.files import ROOT, generated
from tests.monitoring.programs import program

SHIPPED = {
    "NonFiniteGradients",
    "ExplodingGradients",
    "ZeroGradients",
    "VanishingGradients",
    "ClippingAlways",
    "ClippingBroken",
    "TrainingStalled",
    "RunVanished",
    "ExporterDown",
    "GradwatchAlert",
}


def run(name, *arguments):
    result = subprocess.run(
        [program(name), *arguments], cwd=ROOT / "deploy", capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_are_those_that_the_documentation_names():
    assert [rule.name for rule in RULES if rule.name not in SHIPPED] == []
    assert len(RULES) == len(SHIPPED)


@pytest.mark.parametrize("path", generated())
def test_what_is_checked_in_is_what_is_generated(path):
    assert (ROOT / path).read_text() == generated()[path], "`make deploy` writes it anew"


def test_every_name_in_the_rules_is_a_series_of_the_exporter():
    series = {full_name(name) for name in METRICS}
    histograms = {full_name(name) for name, metric in METRICS.items() if metric.kind == "histogram"}
    series |= {name + end for name in histograms for end in ("_bucket", "_count", "_sum")}
    used = set(re.findall(r"gradwatch_\w+", alerting_rules()))
    assert used
    assert used <= series


def test_every_rule_says_in_words_what_is_wrong_and_what_to_do():
    for rule in RULES:
        assert rule.summary.endswith(".")
        assert rule.description.endswith(".")
        assert rule.severity in ("info", "warning", "critical", "{{ $labels.severity }}")


def test_every_runbook_is_a_heading_of_the_docs():
    links = re.findall(r"runbook_url: '(.*?)#(.*?)'", alerting_rules())
    assert len(links) == len(RULES)
    for page, heading in links:
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), flags=re.M)
        wanted = {rule.id for rule in default_rules()} if "{{" in heading else {heading}
        assert wanted <= {one.lower() for one in headings}


def test_what_mutes_an_alert_is_a_rule_of_the_run():
    assert {rule.said_by for rule in RULES} - {None} <= set(Judge(default_rules()).severities)


def test_every_rule_has_a_case_that_fires_and_one_that_does_not():
    assert {case.rule for case in CASES if case.alerts} == SHIPPED
    assert {case.rule for case in CASES if not case.alerts} == SHIPPED


@pytest.mark.parametrize("path", ["prometheus-rules.yml", "vmalert-rules.yml"])
def test_promtool_accepts_the_rules(path):
    run("promtool", "check", "rules", path)
    assert ("keep_firing_for" in (ROOT / "deploy" / path).read_text()) is ("prometheus" in path)


def test_vmalert_accepts_its_rules():
    run("vmalert", "-dryRun", "-rule=vmalert-rules.yml")


def test_each_rule_fires_where_it_should_and_only_there():
    run("promtool", "test", "rules", "prometheus-rules.test.json")


def test_alertmanager_accepts_the_example():
    run("amtool", "check-config", "alertmanager.yml")


def test_no_alert_mutes_one_that_is_worse():
    example = generated()["deploy/alertmanager.yml"]
    pairs = re.findall(r"severity=\"(\w+)\"'\]\n +target_matchers: .*severity=~\"(.*)\"", example)
    assert len(pairs) == example.count("equal:")
    assert {source for source, target in pairs if "critical" in target.split("|")} == {"critical"}
    assert RELAY in example
