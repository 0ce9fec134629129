"""Every sink of gradwatch, and what stands in the place of a library or a server that it writes to."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gradwatch.sinks import (
    Console,
    Jsonl,
    Memory,
    MLflow,
    OpenTelemetry,
    Prometheus,
    TensorBoard,
    Trackio,
    WandB,
    Webhook,
)
from gradwatch.sinks.exposed import Exposed
from gradwatch.sinks.flight import FlightRecorder

__all__ = ["FEWEST", "SINKS", "Stands", "taken"]


class Stands:
    """What a sink writes to, where that is a library's or a server's: each takes whatever it is given.

    Attributes:
        program: what the training loop logs itself, a step.
    """

    def __init__(self, folder: Path, url: str, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.url = folder, url
        self.program: Callable[[], object] = lambda: None
        self._patch = patch

    def library(self, name: str, **has: Any) -> Any:
        """Stands in the place of a library, until the end of the test."""
        library = SimpleNamespace(**has)
        self._patch.setitem(sys.modules, name, library)
        return library

    def wandb(self) -> Any:
        run = Run()
        self.library("wandb", run=run, log=run.log)
        self.program = lambda: run.log({"loss": 1.0})
        return WandB()

    def mlflow(self) -> Any:
        client = SimpleNamespace(set_tag=taken, log_batch=taken)
        entities = SimpleNamespace(Metric=lambda *named: named)
        self.library("mlflow", active_run=lambda: None, MlflowClient=lambda: client, entities=entities)
        return MLflow("of the test")

    def trackio(self) -> Any:
        run = Run()
        levels = SimpleNamespace(ERROR=1, WARN=2, INFO=3)
        self.library("trackio", init=lambda *_, **__: run, AlertLevel=levels)
        self.library("trackio.context_vars", current_run=SimpleNamespace(get=lambda: None))
        self.program = lambda: run.log({"loss": 1.0})
        return Trackio("of the test")

    def opentelemetry(self) -> Any:
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

        exporters = InMemoryLogRecordExporter(), ConsoleMetricExporter(io.StringIO())  # type: ignore[no-untyped-call]
        self._patch.setattr("gradwatch.sinks.otlp._exporters", lambda _: exporters)
        for kind, name in ((OpenTelemetry, "_send_alerts"), (Exposed, "families")):
            self._patch.setattr(kind, name, traced_anew(getattr(kind, name)))
        return OpenTelemetry()


def traced_anew(method: Callable[..., Any]) -> Callable[..., Any]:
    """Of a thread that lives long: Python takes a trace function away that has raised."""

    def call(*given: Any) -> Any:
        sys.settrace(threading.gettrace())
        return method(*given)

    return call


def taken(*_: object, **__: object) -> None:
    """Takes whatever it is given."""


class Run:
    """Of a logger."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(update=taken)
        self.define_metric = self.alert = self.log = self.finish = taken


SINKS: dict[type, Callable[[Stands], Any]] = {
    Console: lambda stands: Console(),
    FlightRecorder: lambda stands: FlightRecorder(stands.folder / "run.jsonl"),
    Jsonl: lambda stands: Jsonl(stands.folder / "run.jsonl", max_bytes=8_000),
    MLflow: Stands.mlflow,
    Memory: lambda stands: Memory(),
    OpenTelemetry: Stands.opentelemetry,
    Prometheus: lambda stands: Prometheus(0, discovery=stands.folder / "targets"),
    TensorBoard: lambda stands: TensorBoard(stands.folder / "tensorboard"),
    Trackio: Stands.trackio,
    WandB: Stands.wandb,
    Webhook: lambda stands: Webhook(stands.url, timeout=1.0),
}

# Lines that are run at least, where there are few: in all, and to open.
FEWEST = {
    Memory: (1, 0), Webhook: (15, 1), WandB: (10, 4), MLflow: (8, 4), Trackio: (10, 4), FlightRecorder: (30, 2),
}  # fmt: skip
