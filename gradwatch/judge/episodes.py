"""Episodes: an alert fires once, may be explained once, and is resolved once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple

from gradwatch.judge.plain import CAUSE, NUMBER, restored, saved_values
from gradwatch.judge.rule import Ending, Finding, Rule
from gradwatch.records import Alert, Cause
from gradwatch.shapes import COUNT, FLAG, NAME, TEXT, Fields, Maybe, OneOf, Row, Shape, That

__all__ = ["Episode", "Episodes", "When", "changes", "explained", "over"]


class When(NamedTuple):
    """Step of an optimizer."""

    optimizer: str
    step: int


_ALERT = Fields(
    rule=TEXT,
    severity=OneOf("warning", "critical"),
    state=OneOf("firing"),
    optimizer=TEXT,
    module=NAME,
    step=COUNT,
    value=NUMBER,
    threshold=NUMBER,
    message=TEXT,
    cause=Maybe(CAUSE),
)


def _is_its_own(saved: Mapping[str, Any]) -> bool:
    alert = saved["alert"]
    return alert is None or list(saved["key"]) == [alert["rule"], alert["optimizer"], alert["module"]]


@dataclass
class Episode:
    """How many records in a row were ill or well, and the alert that fires meanwhile."""

    ill: int = 0
    well: int = 0
    alert: Alert | None = None
    explained: bool = False

    # With the key that it is saved under: rule, optimizer and module.
    remembers: ClassVar[Shape] = That(
        Fields(key=Row(TEXT, TEXT, NAME), ill=COUNT, well=COUNT, alert=Maybe(_ALERT), explained=FLAG),
        _is_its_own,
        "an episode with an alert of its own",
    )

    def goes_on(self, fires_after: int) -> bool:
        """Whether it fires, nothing was well at the step before, and one more that is ill changes nothing."""
        return self.alert is not None and not self.well and self.ill >= fires_after

    def state_dict(self) -> dict[str, Any]:
        """Plain values; when the alert was told, in which words and with what advice, is another's business."""
        told = None if self.alert is None else saved_values(asdict(self.alert))
        if told is not None:
            del told["time"], told["words"], told["remedy"]
        return {"ill": self.ill, "well": self.well, "alert": told, "explained": self.explained}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Episode:
        """The episode that gave this state."""
        alert = restored(saved["alert"])
        if alert is not None:
            alert = Alert(**{**alert, "cause": None if alert["cause"] is None else Cause(**alert["cause"])})
        return cls(saved["ill"], saved["well"], alert, saved["explained"])


Episodes = dict["str | None", Episode]


def changes(episodes: Episodes, rule: Rule, when: When, findings: Mapping[str | None, Finding]) -> Iterator[Alert]:
    """What begins and what ends with what a rule has found in a step, by module."""
    if episodes:
        yield from _ended(episodes, rule, when, findings)
    for module, finding in findings.items():
        yield from _went_on(episodes.setdefault(module, Episode()), rule, when, finding)


def _went_on(episode: Episode, rule: Rule, when: When, finding: Finding) -> Iterator[Alert]:
    """One more finding: it may fire, make a warning critical, or tell the cause of what fires."""
    episode.ill = min(episode.ill + 1, rule.fires_after)
    episode.well = 0
    if not (finding.at_once or episode.ill >= rule.fires_after):
        return
    open_alert = episode.alert
    if open_alert is not None and open_alert.cause is not None and open_alert.cause.kind in finding.critical_by:
        finding = replace(finding, severity="critical")
    severity = finding.severity or rule.severity
    if open_alert is None or (open_alert.severity, severity) == ("warning", "critical"):
        episode.alert = _alert(rule, when, finding)
        if open_alert is not None:
            yield over(open_alert, when, f"critical from step {when.step} of {when.optimizer} on")
            # It is the same episode: what a look has found may be why. Else it is looked for anew, and told.
            known = _found(open_alert.cause) if episode.explained else None
            episode.alert = replace(episode.alert, cause=finding.cause or known)
            episode.explained = episode.explained and episode.alert.cause is not None
        yield episode.alert
    elif open_alert.cause is None and finding.cause is not None:
        event = explained(episode, finding.cause, when.step)
        if event is not None:
            yield event


def _ended(episodes: Episodes, rule: Rule, when: When, still_ill: Mapping[str | None, Finding]) -> Iterator[Alert]:
    for module in [module for module in episodes if module not in still_ill]:
        episode = episodes[module]
        episode.ill = 0
        episode.well += 1
        if episode.alert is None:
            del episodes[module]
        elif episode.well >= rule.clears_after:
            del episodes[module]
            lasted = when.step - episode.alert.step
            yield over(
                episode.alert,
                when,
                f"over after {lasted} steps of {when.optimizer}: {_how_it_ended(rule, when.optimizer)}",
            )


def _how_it_ended(rule: Rule, optimizer: str) -> str:
    """What is so now; a rule that sees a change and not a state says it itself."""
    how: str = rule.ended(optimizer) if isinstance(rule, Ending) else ""
    return how or f"the last {rule.clears_after} did not show it"


def explained(episode: Episode, cause: Cause, step: int) -> Alert | None:
    """The event that tells this cause; None where it is no news."""
    alert = episode.alert
    if alert is None or (alert.cause is not None and not _adds_to(alert.cause, cause)):
        return None
    if episode.explained and not _decides(alert.cause, cause):
        return None
    episode.explained = True
    episode.alert = replace(alert, cause=cause)
    return replace(episode.alert, state="explained", step=step)


def _adds_to(known: Cause, found: Cause) -> bool:
    """Whether a cause confirms the one that is known, and by more: numbers of a later step are no news."""
    return _decides(known, found) or (
        found.kind == known.kind and not found.evidence.keys() <= known.evidence.keys()
    )


def _found(cause: Cause | None) -> Cause | None:
    return None if cause is None or cause.kind == "unknown" else cause


def _decides(known: Cause | None, found: Cause) -> bool:
    """Whether a cause is found where none was before."""
    return known is not None and known.kind == "unknown" != found.kind


def _alert(rule: Rule, when: When, finding: Finding) -> Alert:
    return Alert(
        rule=rule.id,
        severity=finding.severity or rule.severity,
        state="firing",
        optimizer=when.optimizer,
        module=finding.module,
        step=when.step,
        value=finding.value,
        threshold=finding.threshold,
        message=finding.message,
        cause=finding.cause,
        remedy=finding.remedy,
    )


def over(alert: Alert, when: When, how: str) -> Alert:
    """The event that ends an episode."""
    return replace(alert, state="resolved", step=when.step, value=math.nan, message=how)
