"""Scalars and texts for TensorBoard."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any, Protocol

from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.ordering import in_order
from gradwatch.sinks.words import in_words

__all__ = ["TensorBoard"]


# The text tab reads Markdown, which would take a plus at the beginning for a list, and __init__ for bold.
_MARKUP = re.compile(r"^\+|[\\`*]|_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_|\](?=\()")


class _Writer(Protocol):
    """What torch's SummaryWriter and its likes have."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, walltime: float) -> object: ...

    def add_text(self, tag: str, text_string: str, global_step: int) -> object: ...


class TensorBoard:
    """Writes scalars against the steps of the optimizer, and alerts as texts.

    - ``debug/{optimizer}_grad_norm_BEFORE_clip``, ``..._AFTER_clip``, ``debug/{optimizer}_grad_clip_ratio``,
    - ``debug/{module}_grad_norm_BEFORE_clip`` and ``..._AFTER_clip``,
    - ``alerts/{optimizer}_critical`` and ``alerts/{optimizer}_warning``: how many fire, 0 while none does,
    - each alert in words under ``alerts/{optimizer}`` of the text tab.

    A module's name that is an optimizer's too, or that is reported under two optimizers, would put two curves
    under one tag: it is written as ``{optimizer}.{module}``.

    Args:
        log_dir_or_writer: a folder, or a writer with ``add_scalar`` and ``add_text``, which stays open.
    """

    def __init__(self, log_dir_or_writer: str | PathLike[str] | _Writer) -> None:
        self._folder: str | None = None
        self._writer: _Writer | None = None
        self._owned: _EventFile | None = None
        if isinstance(log_dir_or_writer, (str, PathLike)):
            self._folder = fspath(log_dir_or_writer)
        else:
            self._writer = log_dir_or_writer
        self._ambiguous: frozenset[str] = frozenset()
        self._firing: set[tuple[str, str, str, str | None]] = set()

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the event file.

        Raises:
            MissingExtraError: tensorboard is not installed.
            SinkError: the folder cannot be written.
        """
        names = Counter([*run.optimizers, *(name for modules in run.modules.values() for name in modules)])
        self._ambiguous = frozenset(name for name, times in names.items() if times > 1)
        if self._folder is not None:
            self._owned = _EventFile(self._folder)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Write the scalars of each record and the words of each alert."""
        for record, due in in_order(records, alerts):
            # An alert counts in the record that it was raised on, so it is taken in before.
            for alert in due:
                self._take(alert, time.time() if record is None else record.time)
            if record is not None:
                self._write_scalars(record)

    def close(self) -> None:
        """Close the event file; a writer that was given stays open."""
        if self._owned is not None:
            owned, self._owned = self._owned, None
            owned.close()

    def _take(self, alert: Alert, wall_time: float) -> None:
        key = (alert.optimizer, alert.severity, alert.rule, alert.module)
        if alert.state == "firing":
            self._firing.add(key)
        elif alert.state == "resolved":
            self._firing.discard(key)
        tag, text = f"alerts/{alert.optimizer}", _MARKUP.sub(r"\\\g<0>", in_words(alert))
        if self._owned is not None:
            self._owned.add_text(tag, text, alert.step, wall_time)
        elif self._writer is not None:
            self._writer.add_text(tag, text, alert.step)

    def _counts(self, optimizer: str) -> Iterator[tuple[str, float]]:
        for severity in ("critical", "warning"):
            firing = [key for key in self._firing if key[:2] == (optimizer, severity)]
            yield f"alerts/{optimizer}_{severity}", float(len(firing))

    def _write_scalars(self, record: StepRecord) -> None:
        scalars = {**dict(_scalars(record, self._ambiguous)), **dict(self._counts(record.optimizer))}
        if self._owned is not None:
            self._owned.add_scalars(scalars, record.step, record.time)
        elif self._writer is not None:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, record.step, record.time)


def _scalars(record: StepRecord, ambiguous: frozenset[str]) -> Iterator[tuple[str, float]]:
    yield f"debug/{record.optimizer}_grad_norm_BEFORE_clip", record.norm_before
    yield f"debug/{record.optimizer}_grad_norm_AFTER_clip", record.norm_after
    yield f"debug/{record.optimizer}_grad_clip_ratio", record.clip_ratio
    for module, norms in record.modules.items():
        name = f"{record.optimizer}.{module}" if module in ambiguous else module
        yield f"debug/{name}_grad_norm_BEFORE_clip", norms.norm_before
        yield f"debug/{name}_grad_norm_AFTER_clip", norms.norm_after


class _EventFile:
    """An event file of tensorboard's own making, without torch.

    Raises:
        MissingExtraError: tensorboard is not installed.
        SinkError: the folder cannot be written.
    """

    # Seconds that a curve may lag behind, and that a killed run may lose.
    FLUSH_SECONDS = 5

    def __init__(self, folder: str) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.plugins.text.summary_v2 import text_pb
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise MissingExtraError("The TensorBoard sink", "tensorboard", "tensorboard") from error
        self._event: Any = event_pb2.Event
        self._summary: Any = summary_pb2.Summary
        self._text_pb: Any = text_pb
        try:
            self._file: Any = EventFileWriter(folder, flush_secs=self.FLUSH_SECONDS, filename_suffix=".gradwatch")
        except OSError as error:
            raise SinkError(
                f"The TensorBoard folder {folder!r} cannot be written ({error.strerror}): give a folder that is "
                "yours."
            ) from error

    def add_scalars(self, scalars: Mapping[str, float], step: int, wall_time: float) -> None:
        """All scalars of a step in one event: one record on disk in place of one for each curve."""
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._file.add_event(self._event(wall_time=wall_time, step=step, summary=self._summary(value=values)))

    def add_text(self, tag: str, text: str, step: int, wall_time: float) -> None:
        self._file.add_event(self._event(wall_time=wall_time, step=step, summary=self._text_pb(tag, text)))

    def close(self) -> None:
        self._file.close()
