"""Scalars and texts for TensorBoard."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from os import PathLike, fspath
from typing import Protocol

from gradwatch.records import Alert, GroupNorms, Health, NormTable, RunInfo, StepRecord
from gradwatch.sinks.event_file import EventFile
from gradwatch.sinks.ordering import in_order
from gradwatch.sinks.words import in_words

__all__ = ["TensorBoard"]


_SEVERITIES = ("critical", "warning")

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
        self._owned: EventFile | None = None
        if isinstance(log_dir_or_writer, (str, PathLike)):
            self._folder = fspath(log_dir_or_writer)
        else:
            self._writer = log_dir_or_writer
        self._ambiguous: frozenset[str] = frozenset()
        self._tags: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        self._firing: set[tuple[str, str, str, str | None]] = set()

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the event file.

        Raises:
            MissingExtraError: tensorboard is not installed.
            SinkError: the folder cannot be written.
        """
        names = Counter([*run.optimizers, *(name for modules in run.modules.values() for name in modules)])
        twice = {name for name, times in names.items() if times > 1}
        # A module may be called what the name of another is written as.
        written = {f"{optimizer}.{name}" for optimizer in run.optimizers for name in twice}
        self._ambiguous = frozenset(twice | written.intersection(names))
        self._tags = {}
        if self._folder is not None:
            self._owned = EventFile(self._folder)

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Write the scalars of each record and the words of each alert."""
        for record, due in in_order(records, alerts):
            # An alert counts in the record that it was raised on, so it is taken in before.
            for alert in due:
                self._take(alert, time.time() if record is None else record.time)
            if record is not None:
                self._write_scalars(record)
        if self._owned is not None:
            self._owned.write()

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

    def _counts(self, optimizer: str) -> list[int]:
        firing = [severity for name, severity, *_ in self._firing if name == optimizer]
        return [firing.count(severity) for severity in _SEVERITIES]

    def _write_scalars(self, record: StepRecord) -> None:
        norms = (record.norm_before, record.norm_after, record.clip_ratio, *_in_turns(record.modules))
        tags = self._tags_of(record.optimizer, tuple(record.modules))
        scalars = dict(zip(tags, (*norms, *self._counts(record.optimizer)), strict=True))
        if self._owned is not None:
            self._owned.add_scalars(scalars, record.step, record.time)
        elif self._writer is not None:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, record.step, record.time)

    def _tags_of(self, optimizer: str, modules: tuple[str, ...]) -> tuple[str, ...]:
        known = self._tags.get((optimizer, modules))
        if known is None:
            known = self._tags[optimizer, modules] = tuple(_tags(optimizer, modules, self._ambiguous))
        return known


def _tags(optimizer: str, modules: Iterable[str], ambiguous: frozenset[str]) -> Iterator[str]:
    yield f"debug/{optimizer}_grad_norm_BEFORE_clip"
    yield f"debug/{optimizer}_grad_norm_AFTER_clip"
    yield f"debug/{optimizer}_grad_clip_ratio"
    for module in modules:
        name = f"{optimizer}.{module}" if module in ambiguous else module
        yield f"debug/{name}_grad_norm_BEFORE_clip"
        yield f"debug/{name}_grad_norm_AFTER_clip"
    for severity in _SEVERITIES:
        yield f"alerts/{optimizer}_{severity}"


def _in_turns(modules: Mapping[str, GroupNorms]) -> Iterator[float]:
    """The norms before and after clipping of one module after the other."""
    return chain.from_iterable(modules.pairs() if isinstance(modules, NormTable) else modules.values())
