"""What all rules make of the steps: which alerts fire, with which causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter, itemgetter
from typing import Any

from gradwatch.blocks import Block
from gradwatch.judge.episodes import Episode, Episodes, When, changes, explained, over
from gradwatch.judge.finding import by_module
from gradwatch.judge.looks import Look, Looks
from gradwatch.judge.rule import (
    Remembering,
    Rule,
    Suspecting,
    ToldOfRefusals,
    Weighing,
    may_be_shortcut,
    screens,
    severities,
    wants_cause,
)
from gradwatch.judge.saved import check_rules, memory_of, remind
from gradwatch.log import log
from gradwatch.records import Alert, Cause, Severity, StepRecord
from gradwatch.shapes import ANY, Named

__all__ = ["Judge"]

_is_settled = attrgetter("is_settled")


class Judge:
    """Holds steps against rules, and turns findings into alerts with hysteresis.

    Args:
        rules: asked in this order, each of an id of its own. A rule that raises, or finds what is no finding, is
            left out from then on, with one line in the log.

    Attributes:
        errors: failures of rules.
        in_suspense: something has begun to be ill and has not fired yet, or a rule has seen too little to tell.
        revision: how often that which fires, or is suspected, may have changed.
        asks_why: a diagnostic backward may find the cause of an alert that has none, or prove a suspicion.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._screening = {id(rule): rule for rule in self._rules if screens(rule)}
        self._wanting = {rule.id for rule in self._rules if wants_cause(rule)}
        self._shortcuts = {rule.id for rule in self._rules if may_be_shortcut(rule)}
        self.severities = _severities(self._rules)
        self._suspecting = [rule for rule in self._rules if isinstance(rule, Suspecting)]
        # By rule, in its order; then by optimizer and by module: most are empty, and cost nothing then.
        self._episodes: dict[str, dict[str, Episodes]] = {rule.id: {} for rule in self._rules}
        # Made anew after each change, so that other threads may read it meanwhile.
        self._active: tuple[Alert, ...] = ()
        # Asked at each step, so that no call is made for them.
        self.in_suspense = not self._is_settled()
        self.asks_why = False
        self.revision = 0
        self.errors = 0

    @property
    def active(self) -> list[Alert]:
        """The alerts that fire now, those of a rule and optimizer in the order in which they began."""
        return list(self._active)

    def critical_above(self, optimizer: str) -> float:
        """The norm before clipping above which a rule would find the next step critical; Inf where none would."""
        limits = [rule.critical_above(optimizer) for rule in self._rules if hasattr(rule, "critical_above")]
        return min(limits, default=math.inf)

    def refused(self, optimizer: str, step: int) -> None:
        """A guard ends the loop at this step: what rules find in it is no mere warning."""
        for rule in self._rules:
            if isinstance(rule, ToldOfRefusals):
                rule.was_refused(optimizer, step)

    def suspects(self, optimizer: str) -> tuple[str, ...]:
        """Modules that a rule suspects of being ill, and of which a diagnostic backward may prove it."""
        return tuple(module for rule in self._suspecting for module in rule.suspects(optimizer))

    def answered(self, optimizer: str, causes: Mapping[str, Cause]) -> None:
        """What it has found of them."""
        for rule in self._suspecting:
            rule.answered(optimizer, causes)
        self._changed()

    def weighed(self, rule_id: str, optimizer: str, module: str | None, cause: Cause) -> Cause:
        """What a look has found for a rule and a module, held against what the rule knows."""
        for rule in self._rules:
            if rule.id == rule_id and isinstance(rule, Weighing):
                cause = rule.weighed(optimizer, module, cause)
        return cause

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
        rules = {}
        for rule in self._remembering():
            try:
                rules[rule.id] = memory_of(rule)
            except Exception:
                self._failed("The rule %r cannot say what it remembers: a resumed run begins without.", rule)
        return {"episodes": episodes, "rules": rules}

    def load_state_dict(
        self, state: Mapping[str, Any], optimizers: frozenset[str] | None = None, at: str = "The state"
    ) -> None:
        """Go on from what ``state_dict`` gave; what is of a rule that is not here is passed over.

        Args:
            state: of the shape ``saved.JUDGE``.
            optimizers: the names that it may speak of; None for any.
            at: what it is called in an error.

        Raises:
            MisfitError: it is none that ``state_dict`` gave; nothing has changed.
        """
        check_rules(self._rules, state["rules"], optimizers, f"{at}['rules']")
        for saved in state["episodes"]:
            Named(ANY, optimizers).check({saved["key"][1]: None}, f"{at}['episodes']")
        remind([rule for rule in self._remembering() if rule.id in state["rules"]], state["rules"])
        self._episodes = {rule.id: {} for rule in self._rules}
        for saved in state["episodes"]:
            rule_id, optimizer, module = saved["key"]
            if rule_id in self._episodes:
                self._episodes[rule_id].setdefault(optimizer, {})[module] = Episode.of(saved)
        self._changed()

    def judge(self, record: StepRecord) -> list[Alert]:
        """What begins and what ends with this record."""
        return self._told(record.optimizer, Look(record))

    def judge_block(self, block: Block) -> list[Alert]:
        """What begins and what ends with these steps: the same as with their records, one by one."""
        if not block.layout.names:
            # An optimizer whose groups are filled later: there is nothing yet that could be ill.
            return []
        return self._told(block.layout.optimizer, Looks(block, self._screening))

    def _told(self, optimizer: str, looks: Look | Looks) -> list[Alert]:
        """What each rule makes of some steps; in the order of the steps, and of the rules within a step."""
        told: list[tuple[int, Alert]] = []
        stirred = not self._is_settled()
        for rule in tuple(self._rules):
            try:
                episodes = self._episodes[rule.id].setdefault(optimizer, {})
                for index, step, found in looks(rule, episodes):
                    if found is not None:
                        findings = by_module(found)
                        stirred = stirred or bool(episodes or findings)
                        told += [
                            (index, alert) for alert in changes(episodes, rule, When(optimizer, step), findings)
                        ]
            except Exception:
                self._failed("The rule %r failed and is left out from now on.", rule)
                when = When(optimizer, looks.step)
                told += [(looks.index, alert) for alert in self._left_out(rule, when)]
                stirred = True
        # A suspicion may begin and all be settled within one block.
        if stirred or not self._is_settled() or self.suspects(optimizer):
            self._changed()
        return [alert for _, alert in sorted(told, key=itemgetter(0))]

    def _left_out(self, rule: Rule, when: When) -> Iterator[Alert]:
        """A rule judges no more: what it has begun ends, since nothing else would end it."""
        self._rules.remove(rule)
        own = [key for key in self._episodes if not any(other.id == key for other in self._rules)]
        for key in own:
            for optimizer, episodes in self._episodes.pop(key).items():
                for episode in episodes.values():
                    if episode.alert is not None:
                        step = when.step if optimizer == when.optimizer else episode.alert.step
                        yield over(episode.alert, When(optimizer, step), "the rule failed, and judges no more")

    def _remembering(self) -> list[Remembering]:
        return [rule for rule in self._rules if isinstance(rule, Remembering)]

    def _failed(self, what: str, rule: Rule | Remembering) -> None:
        self.errors += 1
        with suppress(Exception):  # a handler of the user's
            log.exception(what, getattr(rule, "id", rule))

    def _changed(self) -> None:
        self.revision += 1
        episodes = [episode for _, _, episode in self._all()]
        self._active = tuple(episode.alert for episode in episodes if episode.alert is not None)
        self.in_suspense = any(episode.alert is None for episode in episodes) or not self._is_settled()
        may_be_told = any(self._wants_cause(alert) for alert in self._active) or bool(self.undecided())
        self.asks_why = may_be_told or any(
            rule.suspects(name) for rule in self._suspecting for name in self._episodes[rule.id]
        )

    def _is_settled(self) -> bool:
        """Whether each rule has seen enough of the first steps."""
        return all(map(_is_settled, self._suspecting))

    def _wants_cause(self, alert: Alert) -> bool:
        return alert.cause is None and alert.rule in self._wanting

    def _all(self) -> Iterator[tuple[tuple[str, str], str | None, Episode]]:
        for rule_id, optimizers in self._episodes.items():
            for optimizer, episodes in optimizers.items():
                for module, episode in episodes.items():
                    yield (rule_id, optimizer), module, episode


def _severities(rules: Iterable[Rule]) -> Mapping[str, tuple[Severity, ...]]:
    """By rule, all that its alerts may have."""
    return {rule.id: severities(rule) for rule in rules}
