"""Scalars and texts for TensorBoard."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from os import PathLike, fspath
from typing import Protocol

import numpy as np

from gradwatch.blocks import FloatArray, StepRow, Steps
from gradwatch.errors import SinkError
from gradwatch.printing import printable
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.curves import Curves, curves
from gradwatch.sinks.event_file import EventFile
from gradwatch.sinks.labels import label
from gradwatch.sinks.losses import Losses, reason_of
from gradwatch.sinks.ordering import in_order, row_of
from gradwatch.sinks.points import tags

__all__ = ["TensorBoard"]


_OLD_TAGS = "debug"

_SEVERITIES = ("critical", "warning")

# The text tab reads Markdown, which would take a plus at the beginning for a list, and __init__ for bold.
_MARKUP = re.compile(r"^\+|[\\`*]|_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_|\](?=\()")


class _Writer(Protocol):
    """What torch's SummaryWriter and its likes have."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, walltime: float) -> object: ...

    def add_text(self, tag: str, text_string: str, global_step: int) -> object: ...


class TensorBoard:
    """Writes scalars against the optimizer's steps, or the loop's (``Watch.loop_step``), and alerts as texts.

    - ``gradwatch/{optimizer}/norm_before``, ``norm_after``, ``clip_ratio``,
    - ``gradwatch/{optimizer}/{module}/norm_before`` and ``norm_after``,
    - ``gradwatch/{optimizer}/critical`` and ``warning``: how many alerts fire, 0 while none does,
    - each alert in words under ``gradwatch/{optimizer}/alerts`` of the text tab.

    With the prefix ``"debug"`` the tags are those of older logs, which dashboards may know:
    ``debug/{optimizer}_grad_norm_BEFORE_clip``, ``..._AFTER_clip``, ``debug/{optimizer}_grad_clip_ratio``,
    ``debug/{module}_grad_norm_BEFORE_clip``, ``..._AFTER_clip``, ``alerts/{optimizer}_critical``, ``..._warning``,
    ``alerts/{optimizer}``. There a module's name that is an optimizer's too, or that is reported under two
    optimizers, is written as ``{optimizer}.{module}``.

    Where the disk was full, or the file was deleted, a new one is begun as soon as it can be; what is missing is
    told under ``gradwatch/lost`` of the text tab.

    Args:
        log_dir_or_writer: a folder, or a writer with ``add_scalar`` and ``add_text``, which stays open.
        prefix: what each tag begins with.
    """

    def __init__(self, log_dir_or_writer: str | PathLike[str] | _Writer, prefix: str = "gradwatch") -> None:
        self._prefix = prefix
        self._folder: str | None = None
        self._writer: _Writer | None = None
        self._owned: EventFile | None = None
        if isinstance(log_dir_or_writer, (str, PathLike)):
            self._folder = fspath(log_dir_or_writer)
        else:
            self._writer = log_dir_or_writer
        self._losses = Losses(f"The TensorBoard folder {self._folder!r}")
        # Steps and alerts in the file that is written.
        self._held = (0, 0)
        self._newest_step = 0
        self._last_loop_step: dict[str, int] = {}
        self._ambiguous: frozenset[str] = frozenset()
        self._tags: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        self._active: set[tuple[str, str, str, str | None]] = set()
        # By optimizer, how many alerts of each severity fire.
        self._firing: Mapping[str, tuple[int, ...]] = {}

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
        self._held = (0, 0)
        if self._folder is not None:
            self._owned = EventFile(self._folder)
            for optimizer, modules in run.modules.items():
                # Here it is no step of the training that waits for it.
                self._owned.expect(self._tags_of(optimizer, tuple(modules)))

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Write the scalars of each record and the words of each alert.

        Raises:
            SinkError: the folder cannot be written now.
        """
        steps = Steps.of(records)
        # What fires beside each step; as alerts come it may be another from one to the next.
        firing = [] if alerts else [self._firing] * len(steps)
        for step, due in in_order(steps, alerts) if alerts else ():
            # An alert counts in the record that it was raised on, so it is taken in before.
            for alert in due:
                self._take(alert, None if step is None else row_of(*step))
            firing.append(self._firing)
        for shown in curves(steps):
            if shown.loop_steps[-1] is not None:
                self._last_loop_step[shown.optimizer] = shown.loop_steps[-1]
            counts = [firing[at].get(shown.optimizer, (0, 0)) for at in shown.at]
            self._write_scalars(shown, np.concatenate((shown.norms, counts), axis=1))
        if self._owned is not None:
            self._write_out(self._owned, steps, alerts)

    def close(self) -> None:
        """Close the event file; a writer that was given stays open."""
        if self._owned is not None:
            owned, self._owned = self._owned, None
            if self._losses.so_far is not None:
                with suppress(SinkError):
                    self._write_out(owned, Steps(()), ())
                self._losses.tell("could not be written to the end")
            owned.close()

    def _write_out(self, file: EventFile, steps: Steps, alerts: Sequence[Alert]) -> None:
        if steps:
            self._newest_step = row_of(*steps.pairs[-1]).step
        anew = not file.is_whole
        if anew:
            # Of a file that is torn, what was written before can be read.
            self._losses.add(*self._held, "the file was deleted")
            self._held = (0, 0)
            lost = self._losses.so_far
            if lost is not None:
                file.add_text("gradwatch/lost", str(lost), self._newest_step, time.time())
        try:
            file.write(anew)
        except Exception as error:  # a store of another kind than the disk has errors of its own
            self._held = (0, 0)
            self._losses.add(len(steps), len(alerts), reason_of(error))
            raise SinkError(
                f"The TensorBoard folder {self._folder!r} cannot be written ({reason_of(error)}): make room, or "
                "make it writable; what is missing is counted, and a new file is begun when it can be."
            ) from error
        self._held = self._held[0] + len(steps), self._held[1] + len(alerts)
        if anew:
            self._losses.tell("is written again")

    def _take(self, alert: Alert, row: StepRow | StepRecord | None) -> None:
        wall_time, at = time.time(), self._last_loop_step.get(alert.optimizer, alert.step)
        if row is not None:
            wall_time, at = row.time, alert.step if row.loop_step is None else row.loop_step
        key = (alert.optimizer, alert.severity, alert.rule, alert.module)
        if alert.state == "firing":
            self._active.add(key)
        elif alert.state == "resolved":
            self._active.discard(key)
        mine = [severity for name, severity, *_ in self._active if name == alert.optimizer]
        # Made anew: the steps before this one keep the counts that they had.
        self._firing = {**self._firing, alert.optimizer: tuple(map(mine.count, _SEVERITIES))}
        old = self._prefix == _OLD_TAGS
        tag = label(f"alerts/{alert.optimizer}" if old else f"{self._prefix}/{alert.optimizer}/alerts")
        text = _MARKUP.sub(r"\\\g<0>", printable(str(alert)))
        if self._owned is not None:
            self._owned.add_text(tag, text, at, wall_time)
        elif self._writer is not None:
            self._writer.add_text(tag, text, at)

    def _write_scalars(self, shown: Curves, values: FloatArray) -> None:
        tags = self._tags_of(shown.optimizer, shown.modules)
        if self._owned is not None:
            self._owned.add_scalars(tags, values, shown.axis, shown.times)
        elif self._writer is not None:
            for step, wall_time, row in zip(shown.axis, shown.times, values.tolist(), strict=True):
                for tag, value in zip(tags, row, strict=True):
                    self._writer.add_scalar(tag, value, step, wall_time)

    def _tags_of(self, optimizer: str, modules: tuple[str, ...]) -> tuple[str, ...]:
        known = self._tags.get((optimizer, modules))
        if known is None:
            known = self._tags[optimizer, modules] = tuple(map(label, self._made(optimizer, modules)))
        return known

    def _made(self, optimizer: str, modules: tuple[str, ...]) -> Iterable[str]:
        if self._prefix == _OLD_TAGS:
            return _old_tags(optimizer, modules, self._ambiguous)
        severities = (f"{self._prefix}/{optimizer}/{severity}" for severity in _SEVERITIES)
        return [*tags(self._prefix, optimizer, modules), *severities]


def _old_tags(optimizer: str, modules: Iterable[str], ambiguous: frozenset[str]) -> Iterator[str]:
    yield f"debug/{optimizer}_grad_norm_BEFORE_clip"
    yield f"debug/{optimizer}_grad_norm_AFTER_clip"
    yield f"debug/{optimizer}_grad_clip_ratio"
    for module in modules:
        name = f"{optimizer}.{module}" if module in ambiguous else module
        yield f"debug/{name}_grad_norm_BEFORE_clip"
        yield f"debug/{name}_grad_norm_AFTER_clip"
    for severity in _SEVERITIES:
        yield f"alerts/{optimizer}_{severity}"
