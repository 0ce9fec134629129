"""The table of alerts as a file of rules, for Prometheus and for vmalert."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.monitoring.alerting import RELAY, RULES, AlertingRule
from gradwatch.monitoring.metrics import with_names

__all__ = ["DOCS", "alerting_rules", "quoted", "runbook"]

# Where the pages of the docs are; a path, since gradwatch cannot know where an operator reads them.
DOCS = "docs"


def alerting_rules(keep_firing: bool = True, docs: str = DOCS) -> str:
    """The rules as a YAML file.

    Args:
        keep_firing: let an alert outlast a short gap, by ``keep_firing_for``: Prometheus 2.42 or later. Its
            elders and vmalert refuse a file that holds the word.
        docs: what the links to the docs begin with.
    """
    lines = ["groups:", "  - name: gradwatch", "    rules:"]
    for rule in RULES:
        lines += _lines(rule, keep_firing, docs)
    return "\n".join(lines) + "\n"


def runbook(rule: AlertingRule, docs: str = DOCS) -> str:
    """The page of the docs that says what to do; of what the run itself says, that of the run's rule."""
    return (
        f"{docs}/rules.md#{{{{ $labels.rule }}}}"
        if rule.name == RELAY
        else f"{docs}/alerts.md#{rule.name.lower()}"
    )


def quoted(text: str) -> str:
    """A YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"


def _lines(rule: AlertingRule, keep_firing: bool, docs: str) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield f"        expr: {quoted(with_names(rule.expression))}"
    yield f"        for: {rule.lasting}"
    if keep_firing:
        yield "        keep_firing_for: 1m"
    yield "        labels:"
    yield f"          severity: {quoted(rule.severity)}"
    yield "        annotations:"
    yield f"          summary: {quoted(rule.summary)}"
    yield f"          description: {quoted(rule.description)}"
    yield f"          runbook_url: {quoted(runbook(rule, docs))}"
