"""Weights & Biases: points in the run that the program logs to, each against the steps of its optimizer."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.points import points
from gradwatch.sinks.wandb_rows import Rows, rows_of

__all__ = ["WandB"]


class WandB:
    """Logs ``gradwatch/OPTIMIZER/...`` against ``gradwatch/OPTIMIZER/step``, and alerts as the run's own alerts.

    W&B drops a row whose step is below that of the row before. So no row of gradwatch takes a step that the
    program may still give: see ``wandb_rows``. The last rows are there when the run is finished.

    Args:
        run: what ``wandb.init`` returned; None: the run that is active when tracking begins.
    """

    def __init__(self, run: Any = None) -> None:
        self._given = run
        self._run: Any = None
        self._rows: Rows | None = None

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Find the run.

        Raises:
            MissingExtraError: wandb is not installed.
            SinkError: there is no run.
        """
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise MissingExtraError("The sink WandB", "wandb", "wandb") from error
        self._run = wandb.run if self._given is None else self._given
        if self._run is None:
            raise SinkError(
                "No run of W&B is active: call wandb.init() before tracking begins, or give WandB(run)."
            )
        self._rows = rows_of(self._run)
        self._run.config.update({"gradwatch/run": run.run}, allow_val_change=True)
        for optimizer in run.optimizers:
            step = f"gradwatch/{optimizer}/step"
            self._run.define_metric(step, hidden=True)
            self._run.define_metric(f"gradwatch/{optimizer}/*", step_metric=step)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Hand on a row for each step, and each alert that fires."""
        if self._rows is None:
            return
        for point in points(records):
            self._rows.put(point.optimizer, {**point.values, f"gradwatch/{point.optimizer}/step": point.step})
        self._rows.log_what_may_be_logged()
        for alert in alerts:
            level = {"critical": "ERROR", "warning": "WARN"}[alert.severity] if alert.state == "firing" else "INFO"
            self._run.alert(f"gradwatch: {alert.title}", str(alert), level, wait_duration=0)

    def close(self) -> None:
        """Let go of the run, which goes on."""
        self._run = self._rows = None
