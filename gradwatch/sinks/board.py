"""What operators are shown of alerts: which fire, how many have, and what each is a part of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gradwatch.incidents import Incidents
from gradwatch.monitoring.metrics import MOST_NAMED
from gradwatch.records import Alert, Incident, RunInfo, State

__all__ = ["OTHER", "AlertBoard", "Place", "Told"]

# The label of every module beyond those that are named.
OTHER = "(other)"

# How it began, its newest explanation, how it ended: those that there were.
_Events = dict[State, Alert]


class Place(NamedTuple):
    """The labels of one series of alerts; modules beyond those that are named share one."""

    optimizer: str
    rule: str
    severity: str
    module: str


class Told(NamedTuple):
    """An alert as a part of its incident.

    Attributes:
        incident: the alert that the incident begins with, such as ``"zero at actor_mlp (actor)"``. No cause is in
            it: one that is found later would make another incident of this one.
        role: ``"root"`` of the incident, or ``"follows"``.
        words: the lines that a person was told, from how it began to its cause and its end.
    """

    incident: str
    role: str
    words: str


class AlertBoard:
    """Takes the alerts of all optimizers.

    Args:
        run: its rules have a series each from the start: a counter first seen at 1 has had no increase.
        modules: by optimizer, those that have series of their own.

    Attributes:
        fired: alerts that have fired, by optimizer, rule and severity.
    """

    # An alert that begins and ends between two scrapes is told of by the next ones.
    TOLD_FOR_SECONDS = 300.0

    def __init__(self, run: RunInfo, modules: Mapping[str, Sequence[str]]) -> None:
        kinds = [
            (optimizer, rule, severity)
            for optimizer in run.optimizers
            for rule, severities in run.rules.items()
            for severity in severities
        ]
        self.fired: Counter[tuple[str, str, str]] = Counter(dict.fromkeys(kinds, 0))
        # By module, the events of each alert that fires.
        self._firing: dict[Place, dict[str | None, _Events]] = {Place(*kind, ""): {} for kind in kinds}
        self._told: dict[Place, tuple[_Events, float]] = {}
        self._incidents = Incidents(run.time, most=0)
        self._own = {optimizer: frozenset(names) for optimizer, names in modules.items()}
        self._named: dict[str, set[str]] = {optimizer: set() for optimizer in run.optimizers}

    def take(self, alert: Alert, now: float) -> None:
        """One more event, at this Unix time in seconds."""
        alert = self._incidents.take(alert)
        place = Place(alert.optimizer, alert.rule, alert.severity, self._label_of(alert))
        firing = self._firing.setdefault(place, {})
        if alert.state == "firing":
            self.fired[alert.optimizer, alert.rule, alert.severity] += 1
            firing[alert.module] = {}
        # What is said of an alert that is over, or whose firing an earlier state of the run knew, stands alone.
        events = firing.get(alert.module, {})
        events[alert.state] = alert
        if alert.state == "resolved":
            firing.pop(alert.module, None)
        if firing:
            # What is over must not be said of a series in which another module still fires.
            self._told[place] = next(reversed(firing.values())), math.inf
        else:
            self._told[place] = events, now + self.TOLD_FOR_SECONDS

    def active(self) -> Iterator[tuple[Place, float]]:
        """1.0 for each series while an alert of it fires, 0.0 before and after."""
        for place, firing in self._firing.items():
            yield place, float(bool(firing))

    def told(self, now: float) -> Iterator[tuple[Place, Told]]:
        """Each alert that fires, or was over only shortly before this Unix time."""
        incidents = self._incidents.all()
        self._told = {place: known for place, known in self._told.items() if now < known[1]}
        for place, (events, _) in self._told.items():
            yield place, _told(list(events.values()), incidents)

    def _label_of(self, alert: Alert) -> str:
        """What a verdict names, which may lie beneath the lines of the report; bounded, as paths are not."""
        module, named = alert.module, self._named[alert.optimizer]
        if module is None or module in self._own.get(alert.optimizer, ()) or module in named:
            return module or ""
        if len(named) == MOST_NAMED:
            return OTHER
        named.add(module)
        return module


def _told(events: Sequence[Alert], incidents: Sequence[Incident]) -> Told:
    newest = events[-1]
    mine = (one for one in reversed(incidents) if any(event is newest for event in one.alerts))
    incident = next(mine, None)
    # Of what is forgotten, since so much came after it, the alert itself is all that is known.
    first = newest if incident is None else incident.alerts[0]
    role = "root" if first.key == newest.key else "follows"
    return Told(f"{first.title} ({first.optimizer})", role, "\n".join(map(str, events)))
