"""The alerting rules for a Prometheus server, written from the table of metrics."""

from __future__ import annotations

from typing import NamedTuple

from gradwatch.monitoring.metrics import full_name

__all__ = ["RULES", "alerting_rules"]


class AlertingRule(NamedTuple):
    """A rule: ``expression`` names metrics in braces, as the table does."""

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str


RULES = (
    AlertingRule(
        "NonFiniteGradients",
        "increase({nonfinite_steps}[5m]) > 0",
        "0s",
        "critical",
        "The gradients of {{ $labels.optimizer }} held NaN or Inf in the last five minutes.",
    ),
    AlertingRule(
        "ExplodingGradients",
        'max by (run, rank, optimizer) ({alert_active}{{rule="explosion"}}) > 0',
        "0s",
        "critical",
        "The gradient norm of {{ $labels.optimizer }} stands far above its own baseline.",
    ),
    AlertingRule(
        "ZeroGradients",
        "{module_grad_norm_after} == 0",
        "1m",
        "critical",
        "The gradient of {{ $labels.module }} has been exactly zero for a minute: it does not learn.",
    ),
    AlertingRule(
        "ClippingBroken",
        'max by (run, rank, optimizer) ({alert_active}{{rule="clip-broken"}}) > 0',
        "0s",
        "critical",
        "The optimizer {{ $labels.optimizer }} consumed more than the limit of its clipping.",
    ),
    AlertingRule(
        "ClippingAlways",
        "increase({clipped_steps}[10m]) / (increase({steps}[10m]) > 0) > 0.95",
        "10m",
        "warning",
        "More than 95 % of the steps of {{ $labels.optimizer }} were clipped for ten minutes.",
    ),
    AlertingRule(
        "TrainingStalled",
        "time() - {last_step_timestamp_seconds} > 300 and on (run, rank) {training_active} == 1",
        "0s",
        "warning",
        "The optimizer {{ $labels.optimizer }} has not stepped for five minutes.",
    ),
    AlertingRule(
        "GradwatchAlert",
        "{alert_active} == 1",
        "0s",
        "warning",
        "gradwatch: {{ $labels.severity }} {{ $labels.rule }} at {{ $labels.optimizer }} {{ $labels.module }}.",
    ),
)


def alerting_rules() -> str:
    """The rules as a YAML file for ``rule_files`` of Prometheus 2.42 or later."""
    lines = ["groups:", "  - name: gradwatch", "    rules:"]
    for rule in RULES:
        lines += [
            f"      - alert: {rule.name}",
            f"        expr: {_quoted(_expression(rule))}",
            f"        for: {rule.lasting}",
            "        keep_firing_for: 1m",
            "        labels:",
            f"          severity: {rule.severity}",
            "        annotations:",
            f"          summary: {_quoted(rule.summary)}",
        ]
    return "\n".join(lines) + "\n"


class _Names(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return full_name(key)


def _expression(rule: AlertingRule) -> str:
    return rule.expression.format_map(_Names())


def _quoted(text: str) -> str:
    """A YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"
