"""Series as Prometheus would have scraped them, and which alert each of them should raise: unit tests for promtool."""

import json
from typing import NamedTuple

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


def told(rule, module="", severity="critical", incident="i", role="root", words="w"):
    labels = (
        f'{OPTIMIZER},rule="{rule}",severity="{severity}",module="{module}",incident="{incident}",role="{role}"'
    )
    return f'gradwatch_alert_info{{{labels},words="{words}"}}'


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
    Case("ClippingBroken", "it fires", {told("clip-broken"): "_x10 1x19"}, 12, 1),
    Case(
        "ClippingBroken",
        "on two modules: told once",
        {told("clip-broken"): "1x30", told("clip-broken", "mlp"): "1x30"},
        12,
        1,
    ),
    Case(
        "ClippingBroken",
        "nothing above the limit came through",
        {told("clip-broken", severity="warning"): "1x30"},
        12,
        0,
    ),
    Case("ClippingBroken", "a run that is over has pushed it", {told("clip-broken"): "0x30"}, 12, 0),
    Case("ClippingBroken", "another rule fires", {told("zero"): "1x30"}, 12, 0),
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
    Case("GradwatchAlert", "it fires", {told("zero", "mlp"): "_x10 1x19"}, 12, 1),
    Case("GradwatchAlert", "two modules", {told("zero", "mlp"): "1x30", told("zero", "cnn"): "1x30"}, 12, 2),
    Case(
        "GradwatchAlert",
        "its words change",
        {told("zero", words="a"): "1x9 stale", told("zero", words="b"): "_x10 1x19"},
        12,
        1,
    ),
    Case("GradwatchAlert", "a run that is over has pushed it", {told("zero"): "_x10 0x19"}, 12, 1),
    Case("GradwatchAlert", "it was pushed long ago", {told("zero"): "_x3 0x26"}, 12, 0),
    Case("GradwatchAlert", "it is over", {told("zero"): "1x9 stale"}, 12, 0),
]


def relayed(rule, module, role):
    """What is told, and the alert that it should be told as."""
    incident, words = "zero at mlp (actor)", f"! CRITICAL {rule} at actor/{module}."
    labels = {"job": "train", "instance": "a:1", "run": "r", "rank": "0", "optimizer": "actor"}
    labels |= {"severity": "critical", "rule": rule, "incident": incident, "role": role}
    labels |= {"module": module} if module else {}
    return told(rule, module, incident=incident, role=role, words=words), {
        "exp_labels": labels,
        "exp_annotations": {
            "summary": f"{rule} at {f'{module} of ' if module else ''}actor in r.",
            "description": f"{words} Said by the run itself, now or in the last five minutes.",
            "runbook_url": f"docs/rules.md#{rule}",
        },
    }


def unit_tests(rules):
    """A file for ``promtool test rules``; JSON is YAML too."""
    tests = [*map(_counted, CASES), _worded()]
    return json.dumps({"rule_files": [rules], "evaluation_interval": "1m", "tests": tests}, indent=1) + "\n"


def _counted(case):
    counted = f'count(ALERTS{{alertname="{case.rule}",alertstate="firing"}}) or vector(0)'
    expected = {"expr": counted, "eval_time": f"{case.minute}m", "exp_samples": [{"value": case.alerts}]}
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    return {"interval": "1m", "input_series": series, "promql_expr_test": [expected]}


def _worded():
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": "1x10"} for series, _ in RELAYED],
        "alert_rule_test": [
            {"eval_time": "5m", "alertname": "GradwatchAlert", "exp_alerts": [alert for _, alert in RELAYED]}
        ],
    }


# Each alert of the run keeps its own severity, module, incident and words.
RELAYED = [relayed("zero", "mlp", "root"), relayed("explosion", "", "follows")]
