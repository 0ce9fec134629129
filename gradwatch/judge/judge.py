"""Episodes: an alert fires once, may be explained once, and is resolved once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gradwatch.judge.rule import Finding, Remembering, Rule
from gradwatch.records import Alert, Cause, StepRecord

__all__ = ["Judge"]

log = logging.getLogger("gradwatch")

# Verdicts that say that something is wrong and not why: a diagnostic backward may find out.
_TO_EXPLAIN = frozenset(["zero", "vanishing", "stale", "leaked", "nonfinite"])


@dataclass
class _Episode:
    """How many records in a row were ill or well, and the alert that fires meanwhile."""

    ill: int = 0
    well: int = 0
    alert: Alert | None = None
    explained: bool = False


# By (rule, optimizer), then by module: most are empty, and cost nothing then.
_Episodes = dict[tuple[str, str], dict["str | None", _Episode]]


class Judge:
    """Holds records against rules, and turns findings into alerts with hysteresis.

    Args:
        rules: asked in this order. A rule that raises is left out from then on, with one line in the log.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._episodes: _Episodes = {}

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now, those of a rule and optimizer in the order in which they began."""
        return [episode.alert for _, _, episode in self._all() if episode.alert is not None]

    def unexplained(self) -> list[Alert]:
        """The alerts that fire now and that a diagnostic backward may find the cause of."""
        return [alert for alert in self.active if alert.rule in _TO_EXPLAIN and alert.cause is None]

    def explained(self, rule_id: str, optimizer: str, module: str | None, cause: Cause, step: int) -> Alert | None:
        """Take in the cause of an alert that fires, found at this step.

        A cause of the same kind as the one at hand confirms it, with more evidence; another kind does not
        replace it.

        Returns:
            The event to tell; None where no such alert fires, or where all of it was told already.
        """
        episode = self._episodes.get((rule_id, optimizer), {}).get(module)
        return None if episode is None else _explained(episode, cause, step)

    def state_dict(self) -> dict[str, Any]:
        """The episodes that are open and what the rules remember, as plain values."""
        episodes = [
            {
                "key": [*key, module],
                "ill": e.ill,
                "well": e.well,
                "alert": None if e.alert is None else asdict(e.alert),
                "explained": e.explained,
            }
            for key, module, e in self._all()
        ]
        rules = {rule.id: rule.state_dict() for rule in self._rules if isinstance(rule, Remembering)}
        return {"episodes": episodes, "rules": rules}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; the state of a rule that is not here is passed over."""
        for saved in state["episodes"]:
            rule_id, optimizer, module = saved["key"]
            episode = _Episode(
                saved["ill"], saved["well"], _alert_of(saved["alert"]), saved.get("explained", False)
            )
            self._episodes.setdefault((rule_id, optimizer), {})[module] = episode
        for rule in self._rules:
            if isinstance(rule, Remembering) and rule.id in state["rules"]:
                rule.load_state_dict(state["rules"][rule.id])

    def judge(self, record: StepRecord) -> list[Alert]:
        """What begins and what ends with this record."""
        alerts: list[Alert] = []
        for rule in tuple(self._rules):
            try:
                found = rule.look(record)
                findings = None if found is None else {finding.module: finding for finding in found}
            except Exception:
                self._rules.remove(rule)
                log.exception("The rule %r failed and is left out from now on.", getattr(rule, "id", rule))
                continue
            if findings is not None:
                alerts += self._changes(rule, record, findings)
        return alerts

    def _changes(self, rule: Rule, record: StepRecord, findings: Mapping[str | None, Finding]) -> Iterator[Alert]:
        key = (rule.id, record.optimizer)
        episodes = self._episodes.get(key)
        if episodes:
            yield from _ended(episodes, rule, record, findings)
        if findings:
            episodes = self._episodes.setdefault(key, {})
            for module, finding in findings.items():
                yield from _went_on(episodes.setdefault(module, _Episode()), rule, record, finding)

    def _all(self) -> Iterator[tuple[tuple[str, str], str | None, _Episode]]:
        for key, episodes in self._episodes.items():
            for module, episode in episodes.items():
                yield key, module, episode


def _went_on(episode: _Episode, rule: Rule, record: StepRecord, finding: Finding) -> Iterator[Alert]:
    """One more finding: it may fire, make a warning critical, or tell the cause of what fires."""
    episode.ill += 1
    episode.well = 0
    if not (finding.at_once or episode.ill >= rule.fires_after):
        return
    open_alert = episode.alert
    severity = finding.severity or rule.severity
    if open_alert is None or (open_alert.severity, severity) == ("warning", "critical"):
        episode.alert = _alert(rule, record, finding)
        if open_alert is not None:
            yield _over(open_alert, record, f"critical from step {record.step} on")
            # It is the same episode: why it began is known already.
            episode.alert = replace(episode.alert, cause=finding.cause or open_alert.cause)
        yield episode.alert
    elif open_alert.cause is None and finding.cause is not None:
        explained = _explained(episode, finding.cause, record.step)
        if explained is not None:
            yield explained


def _ended(
    episodes: dict[str | None, _Episode], rule: Rule, record: StepRecord, still_ill: Mapping[str | None, Finding]
) -> Iterator[Alert]:
    for module in [module for module in episodes if module not in still_ill]:
        episode = episodes[module]
        episode.ill = 0
        episode.well += 1
        if episode.alert is None:
            del episodes[module]
        elif episode.well >= rule.clears_after:
            del episodes[module]
            lasted = record.step - episode.alert.step
            yield _over(
                episode.alert,
                record,
                f"over after {lasted} steps: the last {rule.clears_after} were healthy",
            )


def _explained(episode: _Episode, cause: Cause, step: int) -> Alert | None:
    alert = episode.alert
    if alert is None or episode.explained or (alert.cause is not None and not _adds_to(alert.cause, cause)):
        return None
    episode.explained = True
    episode.alert = replace(alert, cause=cause)
    return replace(episode.alert, state="explained", step=step)


def _adds_to(known: Cause, found: Cause) -> bool:
    """Whether a cause confirms the one that is known, and by more: numbers of a later step are no news."""
    return found.kind == known.kind and not found.evidence.keys() <= known.evidence.keys()


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


def _over(alert: Alert, record: StepRecord, how: str) -> Alert:
    message = f"{how} (it was: {alert.message})"
    return replace(alert, state="resolved", step=record.step, value=math.nan, message=message)
