"""Trackio: points in the run that the program logs to."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from gradwatch.errors import MissingExtraError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.points import points

__all__ = ["Trackio"]


class Trackio:
    """Logs ``gradwatch/OPTIMIZER/...`` at the steps of the optimizer, or of the loop, and alerts as Trackio's own.

    Trackio goes on counting from the highest step that it was given. What the program logs without a step keeps
    the count that it had.

    Args:
        project: where a run is begun, named as the tracked run, if none is active when tracking begins.
    """

    # Steps after which an alert may still come, of all optimizers.
    REMEMBERED = 1000

    def __init__(self, project: str) -> None:
        self._project = project
        self._trackio: Any = None
        self._log: Callable[..., object] | None = None
        self._run: Any = None
        self._owned = False
        # By optimizer and step, what the newest are drawn against: an alert may come after its step.
        self._drawn: dict[tuple[str, int], int] = {}

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Find the run, or begin one.

        Raises:
            MissingExtraError: trackio is not installed.
        """
        try:
            self._trackio = trackio = importlib.import_module("trackio")
        except ImportError as error:
            raise MissingExtraError("The sink Trackio", "trackio", "trackio") from error
        active = importlib.import_module("trackio.context_vars").current_run.get()
        self._owned = active is None
        self._run = trackio.init(self._project, name=run.run, resume="allow") if active is None else active
        self._log = _log_of(self._run)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Log the numbers of each step, and each alert."""
        if self._log is None:
            return
        for point in points(records):
            self._drawn[point.optimizer, point.step] = point.at
            self._log(point.values, step=point.at)
        for oldest in list(self._drawn)[: -self.REMEMBERED]:
            del self._drawn[oldest]
        levels = self._trackio.AlertLevel
        for alert in alerts:
            level = {"critical": levels.ERROR, "warning": levels.WARN}[alert.severity]
            level = level if alert.state == "firing" else levels.INFO
            self._run.alert(
                f"gradwatch: {alert.title}",
                str(alert),
                level,
                step=self._drawn.get((alert.optimizer, alert.step), alert.step),
            )

    def close(self) -> None:
        """Let go of the run, which goes on if the program began it."""
        run, self._run, self._log = self._run, None, None
        if run is not None and self._owned:
            run.finish()


class _Counted:
    """Stands before ``run.log`` and counts the program's own steps, as Trackio would by itself.

    Args:
        run: of Trackio.
    """

    def __init__(self, run: Any) -> None:
        self.log = run.log
        self._next = getattr(run, "_next_step", 0)
        self._counting = threading.Lock()
        run.log = self.of_the_program

    def of_the_program(self, metrics: dict[str, Any], step: int | None = None) -> None:
        with self._counting:
            step = self._next if step is None else step
            self._next = max(self._next, step + 1)
        self.log(metrics, step=step)


def _log_of(run: Any) -> Callable[..., object]:
    """What a run logs with, past what counts the steps of the program."""
    counted = getattr(run.log, "__self__", None)
    if not isinstance(counted, _Counted):
        counted = _Counted(run)
    log: Callable[..., object] = counted.log
    return log
