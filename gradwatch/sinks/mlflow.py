"""MLflow: metrics in the run that the program logs to."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.points import points

__all__ = ["MLflow"]

# What MLflow refuses in a name.
_REFUSED = re.compile(r"[^\w\-. :/]")

_LONGEST_TAG = 5000


class MLflow:
    """Logs ``gradwatch/OPTIMIZER/...`` against the optimizer's steps, or the loop's (``Watch.loop_step``).

    Each alert is a tag of the run.

    It writes by the run's id, so that the thread does not matter; the run that is active is a matter of threads.

    Args:
        run_id: of the run; None: the run that is active when tracking begins.
    """

    # As many as MLflow takes at a time.
    AT_ONCE = 1000

    def __init__(self, run_id: str | None = None) -> None:
        self._given = run_id
        self._run_id = ""
        self._client: Any = None
        self._metric: Any = None

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Find the run.

        Raises:
            MissingExtraError: mlflow is not installed.
            SinkError: there is no run.
        """
        try:
            mlflow = importlib.import_module("mlflow")
        except ImportError as error:
            raise MissingExtraError("The sink MLflow", "mlflow", "mlflow") from error
        active = mlflow.active_run()
        if self._given is None and active is None:
            raise SinkError(
                "No run of MLflow is active: call mlflow.start_run() before tracking begins, or give its id."
            )
        self._run_id = active.info.run_id if self._given is None else self._given
        self._client, self._metric = mlflow.MlflowClient(), mlflow.entities.Metric
        self._client.set_tag(self._run_id, "gradwatch/run", run.run)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Log the metrics of each step, and the newest words of each alert."""
        if self._client is None:
            return
        metrics = [
            self._metric(_REFUSED.sub("_", tag), value, int(point.time * 1000), point.at)
            for point in points(records)
            for tag, value in point.values.items()
        ]
        for begin in range(0, len(metrics), self.AT_ONCE):
            self._client.log_batch(self._run_id, metrics[begin : begin + self.AT_ONCE])
        for alert in alerts:
            key = _REFUSED.sub("_", f"gradwatch/{alert.optimizer}/{alert.title}")
            self._client.set_tag(self._run_id, key, str(alert)[:_LONGEST_TAG])

    def close(self) -> None:
        """Let go of the run, which goes on."""
        self._client = None
