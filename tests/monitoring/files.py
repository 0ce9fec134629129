"""What operators copy, by its path in the repository; all of it is generated."""

from __future__ import annotations

import re
from pathlib import Path

from gradwatch.monitoring.alerting import RULES
from gradwatch.monitoring.alertmanager import alertmanager_example
from gradwatch.monitoring.dashboard import dashboard
from gradwatch.monitoring.metrics import METRICS, full_name
from gradwatch.monitoring.rules import alerting_rules
from tests.monitoring.cases import unit_tests

ROOT = Path(__file__).parents[2]


def generated():
    """The text of each file."""
    return {
        "deploy/prometheus-rules.yml": alerting_rules(),
        "deploy/prometheus-rules.test.json": unit_tests("prometheus-rules.yml"),
        "deploy/vmalert-rules.yml": alerting_rules(keep_firing=False),
        "deploy/alertmanager.yml": alertmanager_example(),
        "deploy/grafana-dashboard.json": dashboard(),
        "docs/metrics.md": _with_generated("docs/metrics.md", _metrics()),
        "docs/alerts.md": _with_generated("docs/alerts.md", _alerts()),
    }


def _with_generated(path, text):
    """A page, the part of which between two marks is generated."""
    page = (ROOT / path).read_text()
    return re.sub(
        r"(<!-- generated -->\n).*(<!-- end -->\n)",
        lambda marks: f"{marks[1]}\n{text}\n{marks[2]}",
        page,
        flags=re.S,
    )


def _metrics():
    rows = [
        f"| `{full_name(m.name)}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |"
        for m in METRICS.values()
    ]
    return "\n".join(["| name | type | labels | what |", "|---|---|---|---|", *rows, ""])


def _alerts():
    return "\n".join(_alert(rule) for rule in RULES)


def _alert(rule):
    severity = "that of the run's own alert" if "{{" in rule.severity else rule.severity
    muted = f"- **Muted by:** the run's own [`{rule.said_by}`](rules.md#{rule.said_by})\n" if rule.said_by else ""
    lasting = "at once" if rule.lasting == "0s" else f"after {rule.lasting}"
    return (
        f"### {rule.name}\n\n- **Severity:** {severity}, {lasting}\n{muted}"
        f"- **Says:** {_plain(rule.summary)}\n- **What to do:** {_plain(rule.description)}\n"
    )


def _plain(text):
    """A template as a reader sees it."""
    text = text.replace("{{ with $labels.module }}{{ . }} of {{ end }}", "*module* of ")
    text = re.sub(r"\{\{ range.*\{\{ end \}\}", "[what the run says] ", text)
    return re.sub(r"\{\{ \$(?:labels\.)?(\w+)[^}]*\}\}", r"*\1*", text)
