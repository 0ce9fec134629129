"""An example configuration of Alertmanager: who is told of what, and what is not told beside it."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.monitoring.alerting import RELAY, RULES

__all__ = ["alertmanager_example"]

# A root must not mute what is worse than itself: a page would be lost with it.
_NO_WORSE = (("critical", "critical|warning|info"), ("warning", "warning|info"))

_OPTIMIZER = "[job, instance, run, rank, optimizer]"

_ROUTES = """\
# An example: put your own receivers in, and keep the rest.
route:
  receiver: team
  # One notification an incident, with all of its alerts.
  group_by: [alertname, run, incident]
  # Long enough for a root to arrive behind what follows from it.
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 4h
  routes:
    - receiver: pager
      matchers: ['severity="critical"']
receivers:
  - name: pager
    webhook_configs:
      - url: http://127.0.0.1:19110/pager
  - name: team
    webhook_configs:
      - url: http://127.0.0.1:19110/team
inhibit_rules:
"""


def alertmanager_example() -> str:
    """The configuration as YAML, for Alertmanager 0.22 or later."""
    return _ROUTES + "\n".join(_inhibitions()) + "\n"


def _inhibitions() -> Iterator[str]:
    yield "  # The root of an incident mutes what follows from it."
    root, follows = f"alertname={RELAY},role=root", f"alertname={RELAY},role=follows"
    yield from _inhibition(root, follows, "[job, instance, run, rank, incident]")
    yield "  # What the run itself says, with its cause, mutes what Prometheus sees of the same."
    for rule in RULES:
        if rule.said_by is not None:
            yield from _inhibition(f"alertname={RELAY},rule={rule.said_by}", f"alertname={rule.name}", _OPTIMIZER)


def _inhibition(source: str, target: str, equal: str) -> Iterator[str]:
    for severity, no_worse in _NO_WORSE:
        yield f"  - source_matchers: [{_matchers(source)}, 'severity=\"{severity}\"']"
        yield f"    target_matchers: [{_matchers(target)}, 'severity=~\"{no_worse}\"']"
        yield f"    equal: {equal}"


def _matchers(text: str) -> str:
    pairs = (pair.split("=") for pair in text.split(","))
    return ", ".join(f"'{label}=\"{value}\"'" for label, value in pairs)
