"""One JSON object a line: the run, then each step and each alert as it comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gradwatch.blocks import Block, Steps
from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.brief import brief_lines
from gradwatch.sinks.curves import curves
from gradwatch.sinks.encoding import line
from gradwatch.sinks.line_file import LineFile
from gradwatch.sinks.lines import BlockLines
from gradwatch.sinks.losses import Losses, reason_of
from gradwatch.sinks.ordering import in_order, row_of

__all__ = ["Jsonl"]


class Jsonl:
    """Writes a line for every record and alert; a file that exists is continued with a new ``"run"`` line.

    Every batch is in the file when it is written, so that a run that is killed loses at most what was still on its
    way. Where the file was deleted or moved, or the disk was full, it is begun anew as soon as it can be: its
    ``"run"`` line then has ``"lost"``, an object of ``steps``, ``alerts`` and ``reason``.

    Args:
        path: the file; its folder is made where it is missing.
        parameters: write every field of each record, with the norms of each parameter; else the brief line of
            ``gradwatch.sinks.brief``, of at most some hundred bytes.
        every: write each n-th step of each optimizer, and those on which an alert was raised.
        max_bytes: a file that would become larger is renamed to ``{path}.1`` and begun anew; None: it grows.
        keep: how many of these are kept, the newest ``.1``.

    Raises:
        ArgumentError: a number is not a positive whole one.
    """

    # Told to the tracker: each block at once, for what is not in the file is lost with a run that is killed.
    prompt = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        parameters: bool = False,
        every: int = 1,
        max_bytes: int | None = None,
        keep: int = 4,
    ) -> None:
        numbers = ("every", every), ("max_bytes", 1 if max_bytes is None else max_bytes), ("keep", keep)
        for name, number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ArgumentError(f"Jsonl's {name} is {number!r}, but a whole number from 1 on was expected.")
        self._path = Path(path)
        self._parameters, self._every = parameters, every
        self._modules: Mapping[str, Sequence[str]] = {}
        self._max_bytes = max_bytes
        self._keep = keep
        self._file = LineFile(self._path)
        self._losses = Losses(f"The JSONL file {str(self._path)!r}")
        self._run: RunInfo | None = None
        # Steps and alerts in the file that is open.
        self._held = (0, 0)
        self._blocks = BlockLines()

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the file and write the line of the run.

        Raises:
            SinkError: the file cannot be written.
        """
        self._run, self._modules = run, run.modules
        try:
            self._begin(run)
        except OSError as error:
            raise SinkError(
                f"The JSONL file {str(self._path)!r} cannot be written ({reason_of(error)}): give a path in "
                "a folder that is yours."
            ) from error

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Append a line for each, an alert behind the step that it was raised on.

        Raises:
            SinkError: the file cannot be written now.
        """
        if self._run is None:
            return
        steps = Steps.of(records)
        text, many = "".join(self._lines(steps, alerts)), (len(steps), len(alerts))
        try:
            self._put(self._run, text, *many)
        except OSError as error:
            self._losses.add(*many, reason_of(error))
            raise SinkError(
                f"The JSONL file {str(self._path)!r} cannot be written ({reason_of(error)}): make room, or make "
                "its folder writable; what is missing in it is counted, and it goes on when it can."
            ) from error

    def close(self) -> None:
        """Close the file."""
        run, self._run = self._run, None
        if run is not None and self._losses.so_far is not None:
            with suppress(OSError):
                self._put(run, "", 0, 0)
            self._losses.tell("could not be written to the end")
        self._file.close()

    def _lines(self, steps: Steps, alerts: Sequence[Alert]) -> list[str]:
        of_steps = [""] * len(steps)
        for places, made in self._of_steps(steps):
            for at, text in zip(places, made, strict=True):
                of_steps[at] = text
        if not alerts and self._every == 1:
            return of_steps
        lines = []
        for index, (pair, due) in enumerate(in_order(steps, alerts)):
            if pair is not None and (due or row_of(*pair).step % self._every == 0):
                lines.append(of_steps[index])
            lines += [line("alert", alert) for alert in due]
        return lines

    def _put(self, run: RunInfo, text: str, steps: int, alerts: int) -> None:
        file = self._file
        if self._max_bytes is not None and any(self._held) and file.size + len(text) > self._max_bytes:
            # Where it cannot be renamed it goes on to grow: better too much than nothing.
            with suppress(OSError):
                file.move_aside(self._keep)
        if not file.is_open:
            self._begin(run)
        file.append(text)
        # Asked afterwards: what was on its way to a file that was moved is in that one.
        if not file.is_in_place():
            steps, alerts = self._begin_anew(run, text, steps, alerts)
        self._held = self._held[0] + steps, self._held[1] + alerts

    def _begin_anew(self, run: RunInfo, text: str, steps: int, alerts: int) -> tuple[int, int]:
        """Where the file is no longer what its path leads to; how much of the text is in the new one."""
        is_deleted = self._file.is_deleted()
        self._file.close()
        if is_deleted:
            self._losses.add(*self._held, "the file was deleted")
        self._begin(run)
        if not is_deleted:
            return 0, 0
        self._file.append(text)
        return steps, alerts

    def _begin(self, run: RunInfo) -> None:
        self._file.open()
        if self._file.size == 0:
            self._held = (0, 0)
        lost = self._losses.so_far
        self._file.append(line("run", run) if lost is None else line("run", run, lost=lost))
        self._losses.tell("is written again")

    def _of_steps(self, steps: Steps) -> Iterator[tuple[Sequence[int], list[str]]]:
        """Some lines, and of which of the steps they are."""
        if not self._parameters:
            for shown in curves(steps):
                yield shown.at, brief_lines(shown, steps, self._modules)
            return
        for held, places, at in steps.alike:
            made = self._blocks.of(held) if isinstance(held, Block) else [line("step", record) for record in held]
            yield at, [made[place] for place in places]
