"""The flight recorder: the last steps in full, written down when something critical fires or the training fails.

It is a sink of its own beside each JSONL file, so that it costs the training loop nothing: it holds the blocks
that are there anyway. Its files are JSONL, as the run's own: the run, what happened, then each step with every
parameter, and the alerts so far.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradwatch.blocks import Kept, Steps
from gradwatch.errors import SinkError
from gradwatch.incidents import Incidents
from gradwatch.records import Alert, Health, Incident, RunInfo, StepRecord
from gradwatch.sinks.encoding import line
from gradwatch.sinks.jsonl import Jsonl
from gradwatch.sinks.losses import reason_of
from gradwatch.sinks.ordering import in_order

__all__ = ["FlightRecorder", "beside"]


@dataclass(frozen=True)
class _Flight:
    """What is said before the steps.

    Attributes:
        reason: the story of the incident, or the error that the training ended with.
        time: Unix time in seconds at which it was written.
        steps: how many follow.
    """

    reason: str
    time: float
    steps: int


class FlightRecorder:
    """Writes ``RUN.flight-1.jsonl`` and so on beside ``RUN.jsonl``: one file an incident.

    Args:
        path: of the JSONL file.
    """

    STEPS, ALERTS = 200, 50
    # A model with up to 2,500 parameters has all of its steps in these; written down they are several times that.
    BYTES = 8 << 20
    # Beside one JSONL file, whatever runs have written to it: the oldest gives way.
    FILES = 10

    # Told to the tracker: steps are of no use before something critical fires.
    patient = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run: RunInfo | None = None
        self._kept = Kept(self.STEPS, self.BYTES)
        self._alerts: deque[Alert] = deque(maxlen=self.ALERTS)
        self._incidents = Incidents(most=1)
        # Of incidents that are written down: the alerts, by what they are about and the step at which they fired.
        self._written: deque[tuple[object, int]] = deque(maxlen=100)
        self._error: BaseException | None = None

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Begin with nothing."""
        self._run = run
        self._incidents = Incidents(run.time, most=1)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Hold the steps; write them down where an incident has become critical."""
        steps, taken = Steps.of(records), 0
        try:
            for place, (_, due) in enumerate(in_order(steps, alerts) if alerts else (), 1):
                if due:
                    # What has come meanwhile is none of what led to an alert.
                    self._kept.take(steps[taken:place])
                    taken = place
                    self._take(due)
        finally:  # a file that cannot be written takes no step from the next one
            self._kept.take(steps[taken:])

    def failed_with(self, error: BaseException) -> None:
        """The training ends with this; to be called before ``close``."""
        self._error = error

    def close(self) -> None:
        """Write down what led to an error of the training, if it ended with one."""
        error, self._error = self._error, None
        if isinstance(error, Exception):  # neither an interrupt nor an exit
            self._write_down(f"{type(error).__name__}: {error}")

    def _take(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            told = self._incidents.take(alert)
            self._alerts.append(told)
            if (told.state, told.severity) == ("firing", "critical"):
                self._note(next(one for one in reversed(self._incidents.all()) if told in one.alerts))

    def _note(self, incident: Incident) -> None:
        own = [(alert.key, alert.step) for alert in incident.alerts if alert.state == "firing"]
        if not any(one in self._written for one in own):
            self._write_down(str(incident))
        self._written.extend(one for one in own if one not in self._written)

    def _write_down(self, reason: str) -> None:
        if self._run is None:
            return
        try:
            path = self._next_path()
            half = path.with_suffix(".part")
            try:
                self._write_to(half, self._run, reason)
                half.replace(path)
            except BaseException:
                half.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise SinkError(
                f"The flight recorder cannot write beside {str(self._path)!r} ({reason_of(error)}): make room, or "
                "make the folder writable."
            ) from error

    def _write_to(self, path: Path, run: RunInfo, reason: str) -> None:
        steps = self._kept.steps()
        with path.open("w", encoding="utf-8") as file:
            file.write(line("run", run))
            file.write(line("flight", _Flight(reason, time.time(), len(steps))))
            file.writelines(line("step", record) for record in steps)
            file.writelines(line("alert", alert) for alert in self._alerts)

    def _next_path(self) -> Path:
        """A file of a new number; what is too many then is removed, oldest first."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        there = dict(sorted(self._numbered()))
        for number in list(there)[: max(len(there) + 1 - self.FILES, 0)]:
            there[number].unlink(missing_ok=True)
        return self._path.with_name(f"{self._path.stem}.flight-{max(there, default=0) + 1}.jsonl")

    def _numbered(self) -> Iterator[tuple[int, Path]]:
        begins = f"{self._path.stem}.flight-"
        for path in self._path.parent.iterdir():
            number = path.name.removeprefix(begins).removesuffix(".jsonl")
            if path.name == f"{begins}{number}.jsonl" and number.isdecimal():
                yield int(number), path


def beside(sinks: Iterable[object]) -> tuple[FlightRecorder, ...]:
    """A flight recorder for each JSONL file."""
    return tuple(FlightRecorder(sink.path) for sink in sinks if isinstance(sink, Jsonl))
