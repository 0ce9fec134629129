"""A run in a file, with what its flight recorder has left beside it, or what is told of it beside that."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from gradwatch.alerts import Alert, Incident
from gradwatch.errors import ArgumentError
from gradwatch.incidents import Incidents
from gradwatch.reading import Lines
from gradwatch.records import StepRecord

__all__ = ["Flight", "Run", "newest_run"]


@dataclass
class Flight:
    """What a flight recorder wrote.

    Attributes:
        file: name of the file.
        reason: the story of the incident, or the error that the training ended with.
        time: Unix time in seconds at which it was written.
        steps: how many it wrote down.
        last: its newest step, with every parameter; None where none could be read.
    """

    file: str
    reason: str
    time: float
    steps: int = 0
    last: StepRecord | None = None


@dataclass
class Run:
    """What a file tells of a run.

    Attributes:
        head: the run's own line, as it was written.
        steps: by optimizer, each step once, in the order of their numbers.
        alerts: all events, oldest first.
        flights: of the flight recorder, oldest first.
        torn: lines of the whole file that could not be read.
        others: names of the other runs that the file holds, oldest first.
    """

    head: Mapping[str, Any]
    steps: dict[str, list[StepRecord]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    torn: int = 0
    others: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.head.get("run", ""))

    @property
    def began(self) -> float:
        """Unix time in seconds at which the run began; NaN where it is not known."""
        began = self.head.get("time")
        return float(began) if isinstance(began, (int, float)) else math.nan

    @property
    def lasted(self) -> float:
        """Seconds from the beginning to the last step; NaN where there is none."""
        times = (step.time - self.began for step in chain.from_iterable(self.steps.values()))
        return max((time for time in times if math.isfinite(time)), default=math.nan)

    def incidents(self) -> list[Incident]:
        """The worst first: what is not over, what is critical, what began early."""
        joined = Incidents(self.began)
        for alert in self.alerts:
            joined.take(alert)
        return sorted(joined.all(), key=lambda i: (i.over is not None, i.severity != "critical", i.since))


def newest_run(path: str | os.PathLike[str], name: str | None = None) -> Run:
    """The run that a file holds last, of all or of those with a name.

    Raises:
        ArgumentError: it cannot be read, or no such run is in it.
    """
    path = Path(path)
    runs = _read(path)
    held = [run for run in runs if name in (None, run.name)]
    if not held:
        there = ", ".join(repr(run.name) for run in runs[-_NAMED:])
        raise ArgumentError(f"{str(path)!r} holds no run {name!r}: give one that it holds, such as {there}.")
    run = held[-1]
    run.others = [other.name for other in runs if other is not run]
    if run.flights:
        run.alerts += _explained(path, run)
    else:
        run.flights += _beside(path, run)
    return run


# Runs that a sentence names.
_NAMED = 5


def _read(path: Path) -> list[Run]:
    """All runs of a file, oldest first; there is one at least."""
    runs: list[Run] = []
    lines = Lines(path)
    for entry, value in lines:
        if entry["kind"] == "run" and not (runs and _is_same(runs[-1].head, entry)):
            runs.append(Run(entry))
        elif runs:
            _take(runs[-1], entry, value, path)
    if not runs:
        raise ArgumentError(f"{str(path)!r} holds no run of gradwatch: give a file that a Jsonl has written.")
    for run in runs:
        # A step that was written twice counts as it was written last.
        run.steps = {
            name: [step for _, step in sorted({step.step: step for step in run.steps[name]}.items())]
            for name in sorted(run.steps, key=_places(run.head.get("optimizers")))
        }
        run.torn = lines.torn
    return runs


def _places(names: Any) -> Callable[[str], int]:
    """Where each stands among those of the run, others behind them."""
    known = names if isinstance(names, list) else []
    return lambda name: known.index(name) if name in known else len(known)


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether it is the line of one run, which a file begins with that was begun anew for its size."""
    return all(one.get(name) == other.get(name) for name in ("run", "time", "rank"))


def _take(run: Run, entry: Mapping[str, Any], value: StepRecord | Alert | None, path: Path) -> None:
    if isinstance(value, StepRecord):
        run.steps.setdefault(value.optimizer, []).append(value)
        if run.flights:
            run.flights[-1].last = value
            run.flights[-1].steps += 1
    elif isinstance(value, Alert):
        run.alerts.append(value)
    elif entry["kind"] == "flight":
        time = entry.get("time")
        run.flights.append(
            Flight(path.name, str(entry.get("reason")), time if isinstance(time, (int, float)) else math.nan)
        )


def _beside(path: Path, run: Run) -> Iterator[Flight]:
    """What the flight recorder wrote of this run; a file of it that cannot be read is passed over."""
    begins = f"{path.stem}.flight-"
    files = [file for file in path.parent.glob("*.jsonl") if file.name.startswith(begins)]
    for file in sorted(files, key=lambda file: (len(file.name), file.name)):
        try:
            found = _read(file)[-1]
        except ArgumentError:
            continue
        if _is_same(found.head, run.head):
            yield from found.flights


_FLIGHT = re.compile(r"(?P<run>.+)\.flight-\d+\.jsonl")


def _explained(path: Path, run: Run) -> Iterator[Alert]:
    """The causes that were found when a flight recorder's file had been written: they stand in the run's own."""
    flight = _FLIGHT.fullmatch(path.name)
    if flight is None:
        return
    fired = {alert.key: alert.step for alert in run.alerts if alert.state == "firing"}
    for alert in _own_alerts(path.with_name(f"{flight['run']}.jsonl"), run):
        if alert.state == "firing" and alert.step > fired.get(alert.key, alert.step):
            del fired[alert.key]  # it is another episode from here on
        elif alert.state == "explained" and alert.step >= fired.get(alert.key, math.inf):
            yield alert


def _own_alerts(path: Path, run: Run) -> list[Alert]:
    try:
        return [alert for own in _read(path) if _is_same(own.head, run.head) for alert in own.alerts]
    except ArgumentError:  # the run's own file may be anywhere
        return []
