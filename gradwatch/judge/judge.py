"""Episodes: an alert fires once, and is resolved once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gradwatch.judge.rule import Finding, Remembering, Rule
from gradwatch.records import Alert, Cause, StepRecord

__all__ = ["Judge"]

log = logging.getLogger("gradwatch")

Key = tuple[str, str, str | None]


@dataclass
class _Episode:
    """How many records in a row were ill or well, and the alert that fires meanwhile."""

    ill: int = 0
    well: int = 0
    alert: Alert | None = None


class Judge:
    """Holds records against rules, and turns findings into alerts with hysteresis.

    Args:
        rules: asked in this order. A rule that raises is left out from then on, with one line in the log.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._episodes: dict[Key, _Episode] = {}

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now, in the order in which they began."""
        return [episode.alert for episode in self._episodes.values() if episode.alert is not None]

    def state_dict(self) -> dict[str, Any]:
        """The episodes that are open and what the rules remember, as plain values."""
        episodes = [
            {"key": list(key), "ill": e.ill, "well": e.well, "alert": None if e.alert is None else asdict(e.alert)}
            for key, e in self._episodes.items()
        ]
        rules = {rule.id: rule.state_dict() for rule in self._rules if isinstance(rule, Remembering)}
        return {"episodes": episodes, "rules": rules}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; the state of a rule that is not here is passed over."""
        for saved in state["episodes"]:
            self._episodes[tuple(saved["key"])] = _Episode(saved["ill"], saved["well"], _alert_of(saved["alert"]))
        for rule in self._rules:
            if isinstance(rule, Remembering) and rule.id in state["rules"]:
                rule.load_state_dict(state["rules"][rule.id])

    def judge(self, record: StepRecord) -> list[Alert]:
        """What begins and what ends with this record."""
        alerts: list[Alert] = []
        for rule in tuple(self._rules):
            try:
                findings = {finding.module: finding for finding in rule.look(record)}
            except Exception:
                self._rules.remove(rule)
                log.exception("The rule %r failed and is left out from now on.", getattr(rule, "id", rule))
                continue
            alerts += self._resolved(rule, record, findings.keys())
            alerts += self._fired(rule, record, list(findings.values()))
        return alerts

    def _fired(self, rule: Rule, record: StepRecord, findings: Sequence[Finding]) -> list[Alert]:
        alerts = []
        for finding in findings:
            key = (rule.id, record.optimizer, finding.module)
            episode = self._episodes.setdefault(key, _Episode())
            episode.ill += 1
            episode.well = 0
            if episode.alert is None and (finding.at_once or episode.ill >= rule.fires_after):
                episode.alert = _alert(rule, record, finding)
                alerts.append(episode.alert)
        return alerts

    def _resolved(self, rule: Rule, record: StepRecord, ill: Iterable[str | None]) -> list[Alert]:
        alerts = []
        still_ill = set(ill)
        for key, episode in list(self._episodes.items()):
            if key[:2] != (rule.id, record.optimizer) or key[2] in still_ill:
                continue
            episode.ill = 0
            episode.well += 1
            if episode.alert is None:
                del self._episodes[key]
            elif episode.well >= rule.clears_after:
                del self._episodes[key]
                alerts.append(_resolution(episode.alert, record, rule.clears_after))
        return alerts


def _alert_of(saved: Mapping[str, Any] | None) -> Alert | None:
    if saved is None:
        return None
    cause = None if saved["cause"] is None else Cause(**saved["cause"])
    return Alert(**{**saved, "cause": cause})


def _alert(rule: Rule, record: StepRecord, finding: Finding) -> Alert:
    return Alert(
        rule=rule.id,
        severity=finding.severity or rule.severity,
        state="firing",
        optimizer=record.optimizer,
        module=finding.module,
        step=record.step,
        value=finding.value,
        threshold=finding.threshold,
        message=finding.message,
        cause=finding.cause,
    )


def _resolution(alert: Alert, record: StepRecord, healthy: int) -> Alert:
    lasted = record.step - alert.step
    message = f"over after {lasted} steps: the last {healthy} were healthy (it was: {alert.message})"
    return replace(alert, state="resolved", step=record.step, value=math.nan, message=message)
