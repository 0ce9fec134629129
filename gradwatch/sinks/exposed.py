"""What a run shows to operators, taken in by the thread of the sinks and read by any other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gradwatch.blocks import Steps
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.board import AlertBoard
from gradwatch.sinks.curves import curves
from gradwatch.sinks.exposition import new_states
from gradwatch.sinks.families import families

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Exposed"]


class Exposed:
    """The state of a run, by the table of ``gradwatch.monitoring.metrics``."""

    def __init__(self, run: RunInfo, health: Callable[[], Health]) -> None:
        self._run, self._health = run, health
        self._states, self._modules_dropped = new_states(run)
        self._board = AlertBoard(run, {name: state.modules for name, state in self._states.items()})
        self._lock = threading.Lock()

    def take(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Set the state that is read next."""
        with self._lock:
            steps = Steps.of(records)
            for shown in curves(steps):
                self._states[shown.optimizer].take(shown, steps)
            for alert in alerts:
                self._board.take(alert, time.time())

    def families(self) -> list[Metric]:
        """All metrics as they are now; nothing in them refers to the state any more."""
        health = self._health()
        with self._lock:
            # Made whole under the lock and rendered without it: a slow reader never holds up a write.
            return families(self._run, health, self._states, self._modules_dropped, self._board, time.time())
