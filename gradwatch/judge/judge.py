"""Episodes: an alert fires once, may be explained once, and is resolved once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple, cast

from gradwatch.blocks import Block
from gradwatch.judge.rule import (
    Ending,
    Finding,
    GoingOn,
    Remembering,
    Rule,
    Screening,
    may_be_shortcut,
    screens,
    severities,
    wants_cause,
)
from gradwatch.records import Alert, Cause, Severity, StepRecord

__all__ = ["Judge"]

log = logging.getLogger("gradwatch")


class _When(NamedTuple):
    optimizer: str
    step: int


@dataclass
class _Episode:
    """How many records in a row were ill or well, and the alert that fires meanwhile."""

    ill: int = 0
    well: int = 0
    alert: Alert | None = None
    explained: bool = False


_Episodes = dict["str | None", _Episode]

# Index among the steps that are judged, number of the step, and what was found there.
_Look = tuple[int, int, "Iterable[Finding] | None"]
_Looking = Callable[[Rule, _Episodes], Iterator[_Look]]


class Judge:
    """Holds steps against rules, and turns findings into alerts with hysteresis.

    Args:
        rules: asked in this order. A rule that raises is left out from then on, with one line in the log.

    Attributes:
        in_suspense: something has begun to be ill and has not fired yet.
        asks_why: an alert fires now that has no cause, and a diagnostic backward may find it.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._screening = {id(rule) for rule in self._rules if screens(rule)}
        self._wanting = {rule.id for rule in self._rules if wants_cause(rule)}
        self._shortcuts = {rule.id for rule in self._rules if may_be_shortcut(rule)}
        self.severities = _severities(self._rules)
        self._ids_repeat = len(self.severities) < len(self._rules)
        # By rule, in its order; then by optimizer and by module: most are empty, and cost nothing then.
        self._episodes: dict[str, dict[str, _Episodes]] = {rule.id: {} for rule in self._rules}
        # Made anew after each change, so that other threads may read it meanwhile.
        self._active: tuple[Alert, ...] = ()
        # Asked at each step, so that no call is made for them.
        self.in_suspense = False
        self.asks_why = False

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now, those of a rule and optimizer in the order in which they began."""
        return list(self._active)

    def critical_above(self, optimizer: str) -> float:
        """The norm before clipping above which a rule would find the next step critical; Inf where none would."""
        limits = [rule.critical_above(optimizer) for rule in self._rules if hasattr(rule, "critical_above")]
        return min(limits, default=math.inf)

    def unexplained(self) -> list[Alert]:
        """The alerts that fire now and that a diagnostic backward may find the cause of."""
        return [alert for alert in self._active if self._wants_cause(alert)]

    def undecided(self) -> list[Alert]:
        """Those whose cause was looked for and not found: when it happens again, it may be."""
        firing = (alert for alert in self._active if alert.rule in self._wanting)
        return [alert for alert in firing if alert.cause is not None and alert.cause.kind == "unknown"]

    def perhaps_shortcuts(self) -> list[Alert]:
        """The alerts that fire now and that may come from a loss that reaches one module around another."""
        return [alert for alert in self._active if alert.rule in self._shortcuts]

    def corrected(self, alert: Alert, cause: Cause | None) -> Alert:
        """An alert whose cause at hand is not the right one: another one, or None where it must be looked for."""
        episode = self._episodes[alert.rule][alert.optimizer][alert.module]
        episode.alert = replace(alert, cause=cause)
        self._changed()
        return episode.alert

    def explained(self, rule_id: str, optimizer: str, module: str | None, cause: Cause, step: int) -> Alert | None:
        """Take in the cause of an alert that fires, found at this step.

        A cause of the same kind as the one at hand confirms it, with more evidence; another kind does not
        replace it.

        Returns:
            The event to tell; None where no such alert fires, or where all of it was told already.
        """
        episode = self._episodes.get(rule_id, {}).get(optimizer, {}).get(module)
        alert = None if episode is None else _explained(episode, cause, step)
        if alert is not None:
            self._changed()
        return alert

    def state_dict(self) -> dict[str, Any]:
        """The episodes that are open and what the rules remember, as plain values."""
        episodes = [
            {
                "key": [*key, module],
                "ill": e.ill,
                "well": e.well,
                "alert": None if e.alert is None else _saved(e.alert),
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
            self._episodes.setdefault(rule_id, {}).setdefault(optimizer, {})[module] = episode
        for rule in self._rules:
            if isinstance(rule, Remembering) and rule.id in state["rules"]:
                _remind(rule, state["rules"][rule.id])
        self._changed()

    def judge(self, record: StepRecord) -> list[Alert]:
        """What begins and what ends with this record."""
        return self._told(record.optimizer, lambda rule, _: iter([(0, record.step, rule.look(record))]))

    def judge_block(self, block: Block) -> list[Alert]:
        """What begins and what ends with these steps: the same as with their records, one by one."""
        if self._ids_repeat:
            # Rules of one id share their episodes: what one makes of a step depends on what others made of it.
            return [alert for record in block for alert in self.judge(record)]
        return self._told(block.layout.optimizer, _Looks(block, self._screening))

    def _told(self, optimizer: str, looks: _Looking) -> list[Alert]:
        """What each rule makes of some steps; in the order of the steps, and of the rules within a step."""
        told: list[tuple[int, Alert]] = []
        stirred = False
        for rule in tuple(self._rules):
            try:
                episodes = self._episodes[rule.id].setdefault(optimizer, {})
                for index, step, found in looks(rule, episodes):
                    if found is not None:
                        findings = {finding.module: finding for finding in found}
                        stirred = stirred or bool(episodes or findings)
                        told += [
                            (index, alert) for alert in _changes(episodes, rule, _When(optimizer, step), findings)
                        ]
            except Exception:
                self._rules.remove(rule)
                log.exception("The rule %r failed and is left out from now on.", getattr(rule, "id", rule))
        if stirred:
            self._changed()
        return [alert for _, alert in sorted(told, key=itemgetter(0))]

    def _changed(self) -> None:
        episodes = [episode for _, _, episode in self._all()]
        self._active = tuple(episode.alert for episode in episodes if episode.alert is not None)
        self.in_suspense = any(episode.alert is None for episode in episodes)
        self.asks_why = any(self._wants_cause(alert) for alert in self._active)

    def _wants_cause(self, alert: Alert) -> bool:
        return alert.cause is None and alert.rule in self._wanting

    def _all(self) -> Iterator[tuple[tuple[str, str], str | None, _Episode]]:
        for rule_id, optimizers in self._episodes.items():
            for optimizer, episodes in optimizers.items():
                for module, episode in episodes.items():
                    yield (rule_id, optimizer), module, episode


class _Looks:
    """How a rule looks at a block: over what is well where it can do so, and at one record after another else.

    While one of its episodes is open each step counts, since what is well may end it; unless the rule sees for
    itself where it goes on as it was.
    """

    def __init__(self, block: Block, screening: Container[int]) -> None:
        self._block = block
        self._screening = screening
        self._records: dict[int, StepRecord] = {}

    def __call__(self, rule: Rule, episodes: _Episodes) -> Iterator[_Look]:
        index = 0
        while index < len(self._block):
            index, found = self._next(rule, episodes, index)
            if index == len(self._block):
                return
            yield index, self._block.rows[index].step, found
            index += 1

    def _next(self, rule: Rule, episodes: _Episodes, index: int) -> tuple[int, Iterable[Finding] | None]:
        """The next step that may change something, and what the rule finds there."""
        if id(rule) in self._screening:
            if not episodes:
                return cast(Screening, rule).look_over(self._block, index)
            goes_on = all(episode.alert is not None and not episode.well for episode in episodes.values())
            if goes_on and hasattr(rule, "look_on"):
                return cast(GoingOn, rule).look_on(self._block, index)
        return index, rule.look(self._record(index))

    def _record(self, index: int) -> StepRecord:
        if index not in self._records:
            self._records[index] = self._block[index]
        return self._records[index]


def _remind(rule: Remembering, state: Any) -> None:
    before = rule.state_dict()
    try:
        rule.load_state_dict(state)
    except (TypeError, ValueError, LookupError):
        rule.load_state_dict(before)
        log.warning(
            "The rule %r begins anew: what it remembered was saved by another version of gradwatch.", rule.id
        )


def _severities(rules: Iterable[Rule]) -> Mapping[str, tuple[Severity, ...]]:
    """By rule, all that its alerts may have."""
    several: dict[str, tuple[Severity, ...]] = {}
    for rule in rules:
        several[rule.id] = tuple(dict.fromkeys((*several.get(rule.id, ()), *severities(rule))))
    return several


def _changes(
    episodes: _Episodes, rule: Rule, when: _When, findings: Mapping[str | None, Finding]
) -> Iterator[Alert]:
    if episodes:
        yield from _ended(episodes, rule, when, findings)
    for module, finding in findings.items():
        yield from _went_on(episodes.setdefault(module, _Episode()), rule, when, finding)


def _went_on(episode: _Episode, rule: Rule, when: _When, finding: Finding) -> Iterator[Alert]:
    """One more finding: it may fire, make a warning critical, or tell the cause of what fires."""
    episode.ill = min(episode.ill + 1, rule.fires_after)
    episode.well = 0
    if not (finding.at_once or episode.ill >= rule.fires_after):
        return
    open_alert = episode.alert
    severity = finding.severity or rule.severity
    if open_alert is None or (open_alert.severity, severity) == ("warning", "critical"):
        episode.alert = _alert(rule, when, finding)
        if open_alert is not None:
            yield _over(open_alert, when, f"critical from step {when.step} on")
            # It is the same episode: why it began is known already.
            episode.alert = replace(episode.alert, cause=finding.cause or open_alert.cause)
        yield episode.alert
    elif open_alert.cause is None and finding.cause is not None:
        explained = _explained(episode, finding.cause, when.step)
        if explained is not None:
            yield explained


def _ended(
    episodes: _Episodes, rule: Rule, when: _When, still_ill: Mapping[str | None, Finding]
) -> Iterator[Alert]:
    for module in [module for module in episodes if module not in still_ill]:
        episode = episodes[module]
        episode.ill = 0
        episode.well += 1
        if episode.alert is None:
            del episodes[module]
        elif episode.well >= rule.clears_after:
            del episodes[module]
            lasted = when.step - episode.alert.step
            yield _over(
                episode.alert,
                when,
                f"over after {lasted} steps: {_how_it_ended(rule, when.optimizer)}",
            )


def _how_it_ended(rule: Rule, optimizer: str) -> str:
    """What is so now; a rule that sees a change and not a state says it itself."""
    how: str = rule.ended(optimizer) if isinstance(rule, Ending) else ""
    return how or f"the last {rule.clears_after} did not show it"


def _explained(episode: _Episode, cause: Cause, step: int) -> Alert | None:
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


def _decides(known: Cause | None, found: Cause) -> bool:
    """Whether a cause is found where none was before."""
    return known is not None and known.kind == "unknown" != found.kind


def _saved(alert: Alert) -> dict[str, Any]:
    """What makes it the same alert again; when it was told and in which words is another's business."""
    return {name: value for name, value in asdict(alert).items() if name not in ("time", "words")}


def _alert_of(saved: Mapping[str, Any] | None) -> Alert | None:
    if saved is None:
        return None
    cause = None if saved["cause"] is None else Cause(**saved["cause"])
    return Alert(**{**saved, "cause": cause})


def _alert(rule: Rule, when: _When, finding: Finding) -> Alert:
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
    )


def _over(alert: Alert, when: _When, how: str) -> Alert:
    return replace(alert, state="resolved", step=when.step, value=math.nan, message=how)
