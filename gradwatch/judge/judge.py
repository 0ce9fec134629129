"""What all rules make of the steps: which alerts fire, with which causes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any, cast

from gradwatch.blocks import Block
from gradwatch.judge.episodes import Episode, Episodes, When, changes, explained
from gradwatch.judge.rule import (
    Finding,
    GoingOn,
    Remembering,
    Rule,
    Screening,
    Suspecting,
    may_be_shortcut,
    screens,
    severities,
    wants_cause,
)
from gradwatch.records import Alert, Cause, Severity, StepRecord

__all__ = ["Judge"]

log = logging.getLogger("gradwatch")


# Index among the steps that are judged, number of the step, and what was found there.
_Look = tuple[int, int, "Iterable[Finding] | None"]
_Looking = Callable[[Rule, Episodes], Iterator[_Look]]


class Judge:
    """Holds steps against rules, and turns findings into alerts with hysteresis.

    Args:
        rules: asked in this order. A rule that raises is left out from then on, with one line in the log.

    Attributes:
        in_suspense: something has begun to be ill and has not fired yet, or a rule has seen too little to tell.
        asks_why: a diagnostic backward may find the cause of an alert that has none, or prove a suspicion.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._screening = {id(rule) for rule in self._rules if screens(rule)}
        self._wanting = {rule.id for rule in self._rules if wants_cause(rule)}
        self._shortcuts = {rule.id for rule in self._rules if may_be_shortcut(rule)}
        self.severities = _severities(self._rules)
        self._suspecting = [rule for rule in self._rules if isinstance(rule, Suspecting)]
        self._ids_repeat = len(self.severities) < len(self._rules)
        # By rule, in its order; then by optimizer and by module: most are empty, and cost nothing then.
        self._episodes: dict[str, dict[str, Episodes]] = {rule.id: {} for rule in self._rules}
        # Made anew after each change, so that other threads may read it meanwhile.
        self._active: tuple[Alert, ...] = ()
        # Asked at each step, so that no call is made for them.
        self.in_suspense = not self._is_settled()
        self.asks_why = False

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now, those of a rule and optimizer in the order in which they began."""
        return list(self._active)

    def critical_above(self, optimizer: str) -> float:
        """The norm before clipping above which a rule would find the next step critical; Inf where none would."""
        limits = [rule.critical_above(optimizer) for rule in self._rules if hasattr(rule, "critical_above")]
        return min(limits, default=math.inf)

    def suspects(self, optimizer: str) -> tuple[str, ...]:
        """Modules that a rule suspects of being ill, and of which a diagnostic backward may prove it."""
        return tuple(module for rule in self._suspecting for module in rule.suspects(optimizer))

    def answered(self, optimizer: str, causes: Mapping[str, Cause]) -> None:
        """What it has found of them."""
        for rule in self._suspecting:
            rule.answered(optimizer, causes)
        self._changed()

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
        alert = None if episode is None else explained(episode, cause, step)
        if alert is not None:
            self._changed()
        return alert

    def state_dict(self) -> dict[str, Any]:
        """The episodes that are open and what the rules remember, as plain values."""
        episodes = [{"key": [*key, module], **episode.state_dict()} for key, module, episode in self._all()]
        rules = {rule.id: rule.state_dict() for rule in self._rules if isinstance(rule, Remembering)}
        return {"episodes": episodes, "rules": rules}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; the state of a rule that is not here is passed over."""
        for saved in state["episodes"]:
            rule_id, optimizer, module = saved["key"]
            self._episodes.setdefault(rule_id, {}).setdefault(optimizer, {})[module] = Episode.of(saved)
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
        stirred = not self._is_settled()
        for rule in tuple(self._rules):
            try:
                episodes = self._episodes[rule.id].setdefault(optimizer, {})
                for index, step, found in looks(rule, episodes):
                    if found is not None:
                        findings = {finding.module: finding for finding in found}
                        stirred = stirred or bool(episodes or findings)
                        told += [
                            (index, alert) for alert in changes(episodes, rule, When(optimizer, step), findings)
                        ]
            except Exception:
                self._rules.remove(rule)
                self._suspecting = [one for one in self._suspecting if one is not rule]
                log.exception("The rule %r failed and is left out from now on.", getattr(rule, "id", rule))
        if stirred or not self._is_settled():
            self._changed()
        return [alert for _, alert in sorted(told, key=itemgetter(0))]

    def _changed(self) -> None:
        episodes = [episode for _, _, episode in self._all()]
        self._active = tuple(episode.alert for episode in episodes if episode.alert is not None)
        self.in_suspense = any(episode.alert is None for episode in episodes) or not self._is_settled()
        may_be_told = any(self._wants_cause(alert) for alert in self._active) or bool(self.undecided())
        self.asks_why = may_be_told or any(
            rule.suspects(name) for rule in self._suspecting for name in self._episodes[rule.id]
        )

    def _is_settled(self) -> bool:
        """Whether each rule has seen enough of the first steps."""
        return all(rule.is_settled for rule in self._suspecting)

    def _wants_cause(self, alert: Alert) -> bool:
        return alert.cause is None and alert.rule in self._wanting

    def _all(self) -> Iterator[tuple[tuple[str, str], str | None, Episode]]:
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

    def __call__(self, rule: Rule, episodes: Episodes) -> Iterator[_Look]:
        index = 0
        while index < len(self._block):
            index, found = self._next(rule, episodes, index)
            if index == len(self._block):
                return
            yield index, self._block.rows[index].step, found
            index += 1

    def _next(self, rule: Rule, episodes: Episodes, index: int) -> tuple[int, Iterable[Finding] | None]:
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
