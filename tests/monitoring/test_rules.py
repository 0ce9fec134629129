import json
import os
import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

from gradwatch.monitoring.metrics import METRICS, full_name
from gradwatch.monitoring.rules import RULES, alerting_rules

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

TARGET = 'job="train",instance="a:1"'
RUN = f'{TARGET},run="r",rank="0"'
OPTIMIZER = f'{RUN},optimizer="actor"'
MLP = f'{OPTIMIZER},module="mlp"'
NONFINITE = f"gradwatch_nonfinite_steps_total{{{OPTIMIZER}}}"
SKIPPED = f"gradwatch_skipped_steps_total{{{OPTIMIZER}}}"
WINDOW = f"gradwatch_grad_norm_before_window_max{{{OPTIMIZER}}}"
COUNT = f"gradwatch_grad_norm_before_distribution_count{{{OPTIMIZER}}}"
LOWER = f'gradwatch_grad_norm_before_distribution_bucket{{{OPTIMIZER},le="1.0"}}'
MIDDLE = f'gradwatch_grad_norm_before_distribution_bucket{{{OPTIMIZER},le="3.16"}}'
UPPER = f'gradwatch_grad_norm_before_distribution_bucket{{{OPTIMIZER},le="+Inf"}}'
MODULE_AFTER = f"gradwatch_module_grad_norm_after{{{MLP}}}"
AFTER = f"gradwatch_grad_norm_after{{{OPTIMIZER}}}"
STEPS = f"gradwatch_steps_total{{{OPTIMIZER}}}"
CLIPPED = f"gradwatch_clipped_steps_total{{{OPTIMIZER}}}"
LAST = f"gradwatch_last_step_timestamp_seconds{{{OPTIMIZER}}}"
ACTIVE = f"gradwatch_training_active{{{RUN}}}"
NEXT_ACTIVE = f'gradwatch_training_active{{{TARGET},run="next",rank="0"}}'
UP = f"up{{{TARGET}}}"
# promtool has no short form for these.
NANS = " ".join(["NaN"] * 30)


def firing(rule, module=""):
    return f'gradwatch_alert_active{{{OPTIMIZER},rule="{rule}",severity="critical",module="{module}"}}'


def fired(rule, severity="critical"):
    return f'gradwatch_alerts_total{{{OPTIMIZER},rule="{rule}",severity="{severity}"}}'


class Case(NamedTuple):
    """Series, with a value a minute, and the alerts of a rule that fire at a minute."""

    rule: str
    why: str
    series: dict
    minute: int
    alerts: int


CASES = [
    Case("NonFiniteGradients", "one NaN is consumed", {NONFINITE: "0x10 1x20", SKIPPED: "0x30"}, 13, 1),
    Case("NonFiniteGradients", "the first scrape sees it already", {NONFINITE: "1x30", SKIPPED: "0x30"}, 2, 1),
    Case("NonFiniteGradients", "all are finite", {NONFINITE: "0x30", SKIPPED: "0x30"}, 13, 0),
    Case("NonFiniteGradients", "the scaler skipped it", {NONFINITE: "0x10 1x20", SKIPPED: "0x10 1x20"}, 13, 0),
    Case("NonFiniteGradients", "it is long ago", {NONFINITE: "0x10 1x20", SKIPPED: "0x30"}, 20, 0),
    Case(
        "ExplodingGradients",
        "one minute stands out",
        {WINDOW: "2x20 500 2x9", COUNT: "0+60x30", LOWER: "0x30", MIDDLE: "0+60x30", UPPER: "0+60x30"},
        20 + 1,
        1,
    ),
    Case(
        "ExplodingGradients",
        "norms vary as ever",
        {WINDOW: "2 30 4 90 2x26", COUNT: "0+60x30", LOWER: "0x30", MIDDLE: "0+60x30", UPPER: "0+60x30"},
        3,
        0,
    ),
    Case(
        "ExplodingGradients",
        "too few steps to know what is usual",
        {WINDOW: "500x30", COUNT: "0 1 2 3x27", LOWER: "0x30", MIDDLE: "0 1 2 3x27", UPPER: "0 1 2 3x27"},
        3,
        0,
    ),
    Case("ZeroGradients", "zero for minutes", {MODULE_AFTER: "1x10 0x19"}, 14, 1),
    Case(
        "ZeroGradients",
        "missing, which is no number",
        {MODULE_AFTER: NANS, firing("zero", "mlp"): "1x30"},
        5,
        1,
    ),
    Case("ZeroGradients", "both say so", {MODULE_AFTER: "0x30", firing("zero", "mlp"): "1x30"}, 5, 1),
    Case("ZeroGradients", "a single zero", {MODULE_AFTER: "1x10 0 1x18"}, 11, 0),
    Case("ZeroGradients", "small is not zero", {MODULE_AFTER: "1e-30x30"}, 14, 0),
    Case("ZeroGradients", "no step yet", {MODULE_AFTER: NANS, firing("zero", "mlp"): "0x30"}, 14, 0),
    Case(
        "VanishingGradients", "one module of a healthy optimizer", {MODULE_AFTER: "1e-9x30", AFTER: "1x30"}, 10, 1
    ),
    Case(
        "VanishingGradients", "all is small: it has converged", {MODULE_AFTER: "1e-9x30", AFTER: "1e-9x30"}, 10, 0
    ),
    Case("VanishingGradients", "zero is another rule's", {MODULE_AFTER: "0x30", AFTER: "1x30"}, 10, 0),
    Case("VanishingGradients", "it is healthy", {MODULE_AFTER: "0.1x30", AFTER: "1x30"}, 10, 0),
    Case("ClippingAlways", "every step", {STEPS: "0+60x40", CLIPPED: "0+60x40"}, 25, 1),
    Case("ClippingAlways", "every other step", {STEPS: "0+60x40", CLIPPED: "0+30x40"}, 25, 0),
    Case("ClippingAlways", "no step at all", {STEPS: "60x40", CLIPPED: "60x40"}, 25, 0),
    Case(
        "ClippingBroken",
        "it fires",
        {firing("clip-broken"): "0x10 1x19", fired("clip-broken"): "0x10 1x19"},
        25,
        1,
    ),
    Case(
        "ClippingBroken",
        "shorter than a scrape",
        {firing("clip-broken"): "0x30", fired("clip-broken"): "0x10 1x19"},
        13,
        1,
    ),
    Case("ClippingBroken", "another rule fires", {firing("zero"): "1x30", fired("zero"): "0 1x29"}, 13, 0),
    Case("ClippingBroken", "nothing fires", {firing("clip-broken"): "0x30", fired("clip-broken"): "0x30"}, 13, 0),
    Case("TrainingStalled", "no step for long", {LAST: "0x30", ACTIVE: "1x30"}, 10, 1),
    Case("TrainingStalled", "it steps", {LAST: "0+60x30", ACTIVE: "1x30"}, 10, 0),
    Case("TrainingStalled", "it is over", {LAST: "0x30", ACTIVE: "0x30"}, 10, 0),
    Case(
        "RunVanished",
        "another took its place",
        {ACTIVE: "1x10 stale", NEXT_ACTIVE: "_x11 1x19", UP: "1x30"},
        15,
        1,
    ),
    Case("RunVanished", "it is there", {ACTIVE: "1x30", UP: "1x30"}, 15, 0),
    Case("RunVanished", "the target is down", {ACTIVE: "1x10 stale", UP: "1x10 0x20"}, 15, 0),
    Case("RunVanished", "it is long ago", {ACTIVE: "1x2 stale", NEXT_ACTIVE: "_x3 1x27", UP: "1x30"}, 25, 0),
    Case("ExporterDown", "a run was there", {ACTIVE: "1x10 stale", UP: "1x10 0x20"}, 16, 1),
    Case("ExporterDown", "no run was there", {UP: "0x30"}, 16, 0),
    Case("ExporterDown", "it answers", {ACTIVE: "1x30", UP: "1x30"}, 16, 0),
    Case("ExporterDown", "it missed one scrape", {ACTIVE: "1x10 stale 1x18", UP: "1x10 0 1x18"}, 12, 0),
    Case("GradwatchAlert", "it fires", {firing("zero", "mlp"): "0x10 1x19", fired("zero"): "0x10 1x19"}, 25, 1),
    Case(
        "GradwatchAlert", "shorter than a scrape", {firing("growth"): "0x30", fired("growth"): "0x10 1x19"}, 13, 1
    ),
    Case("GradwatchAlert", "a rule of the user's", {fired("my-own"): "_x10 1x19"}, 12, 1),
    Case("GradwatchAlert", "it is long over", {firing("zero"): "0x30", fired("zero"): "0x5 1x24"}, 20, 0),
    Case("GradwatchAlert", "nothing ever fired", {firing("zero"): "0x30", fired("zero"): "0x30"}, 20, 0),
]


@pytest.fixture
def promtool():
    found = os.environ.get("GRADWATCH_PROMTOOL") or shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed, nor named by GRADWATCH_PROMTOOL")
    return found


def run(promtool, folder, *arguments):
    result = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_are_those_that_the_documentation_names():
    assert [rule.name for rule in RULES if rule.name not in SHIPPED] == []
    assert len(RULES) == len(SHIPPED)


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


def test_every_rule_has_a_case_that_fires_and_one_that_does_not():
    for expected in (0, 1):
        assert {case.rule for case in CASES if case.alerts == expected} == SHIPPED


@pytest.mark.parametrize("keep_firing", [True, False])
def test_promtool_accepts_the_rules(promtool, tmp_path, keep_firing):
    (tmp_path / "rules.yml").write_text(alerting_rules(keep_firing))
    run(promtool, tmp_path, "check", "rules", "rules.yml")
    assert ("keep_firing_for" in alerting_rules(keep_firing)) is keep_firing


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{case.why.replace(' ', '-')}")
def test_each_rule_fires_where_it_should_and_only_there(promtool, tmp_path, case):
    # Without keep_firing_for: what is asked is when the expression holds.
    (tmp_path / "rules.yml").write_text(alerting_rules(keep_firing=False))
    counted = f'count(ALERTS{{alertname="{case.rule}",alertstate="firing"}}) or vector(0)'
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {"expr": counted, "eval_time": f"{case.minute}m", "exp_samples": [{"value": case.alerts}]}
        ],
    }
    # JSON is YAML too.
    file = json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]})
    (tmp_path / "test.yml").write_text(file)
    run(promtool, tmp_path, "test", "rules", "test.yml")


def in_words(rule, module):
    words = f"! CRITICAL {rule} at actor/{module}."
    labels = f'{OPTIMIZER},rule="{rule}",severity="critical",module="{module}",words="{words}"'
    return {"series": f"gradwatch_alert_info{{{labels}}}", "values": "1x10"}


@pytest.mark.parametrize(
    ("series", "module", "words"),
    [
        (
            [
                {"series": firing("zero", "mlp"), "values": "1x10"},
                in_words("zero", "mlp"),
                in_words("zero", "cnn"),
            ],
            "mlp",
            "! CRITICAL zero at actor/mlp. ",
        ),
        # What has begun and ended between two scrapes is known by the counter alone, which has no module.
        (
            [{"series": fired("zero"), "values": "0 0 0 1x10"}, in_words("zero", "cnn"), in_words("stale", "mlp")],
            None,
            "! CRITICAL zero at actor/cnn. ",
        ),
        ([{"series": firing("zero", "mlp"), "values": "1x10"}], "mlp", ""),
    ],
)
def test_an_alert_of_the_run_keeps_its_own_severity_module_and_words(promtool, tmp_path, series, module, words):
    (tmp_path / "rules.yml").write_text(alerting_rules())
    labels = {"severity": "critical", "rule": "zero", "job": "train", "instance": "a:1", "run": "r", "rank": "0"}
    expected = {
        "exp_labels": {**labels, "optimizer": "actor", **({"module": module} if module else {})},
        "exp_annotations": {
            "summary": f"zero at actor {module or ''} in r.",
            "description": f"{words}Said by the run itself, now or in the last five minutes.",
        },
    }
    test = {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [{"eval_time": "5m", "alertname": "GradwatchAlert", "exp_alerts": [expected]}],
    }
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [test]}))
    run(promtool, tmp_path, "test", "rules", "test.yml")
