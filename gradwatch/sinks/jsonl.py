"""One JSON object a line: the run, then each step and each alert as it comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from gradwatch.blocks import Alike, Block, Steps
from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.brief import brief_lines
from gradwatch.sinks.encoding import line
from gradwatch.sinks.lines import BlockLines
from gradwatch.sinks.ordering import in_order, row_of

__all__ = ["Jsonl"]


class Jsonl:
    """Writes a line for every record and alert; a file that exists is continued with a new ``"run"`` line.

    Every batch is flushed, so that a run that is killed loses at most what was still on its way.

    Args:
        path: the file; its folder is made where it is missing.
        parameters: write every field of each record, with the norms of each parameter; else the brief line of
            ``gradwatch.sinks.brief``, of at most some hundred bytes.
        every: write each n-th step of each optimizer, and those on which an alert was raised.
    """

    def __init__(self, path: str | os.PathLike[str], parameters: bool = False, every: int = 1) -> None:
        if every < 1:
            raise ArgumentError(f"every is {every!r}, but a whole number of at least 1 was expected.")
        self._path = Path(path)
        self._parameters, self._every = parameters, every
        self._modules: Mapping[str, Sequence[str]] = {}
        self._file: TextIO | None = None
        self._blocks = BlockLines()

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the file and write the line of the run.

        Raises:
            SinkError: the file cannot be written.
        """
        self._modules = run.modules
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torn = _ends_within_a_line(self._path)
            self._file = self._path.open("a", encoding="utf-8")
            # A run that was killed may have left half a line; it keeps to itself.
            self._file.write("\n" if torn else "")
            self._write_lines([line("run", run)])
        except OSError as error:
            raise SinkError(
                f"The JSONL file {str(self._path)!r} cannot be written ({error.strerror}): give a path in "
                "a folder that is yours."
            ) from error

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Append a line for each, an alert behind the step that it was raised on."""
        steps = Steps.of(records)
        of_steps = [""] * len(steps)
        for alike in steps.alike:
            for index, made in zip(alike.at, self._of_steps(alike), strict=True):
                of_steps[index] = made
        lines = []
        for index, (pair, due) in enumerate(in_order(steps, alerts)):
            if pair is not None and (due or row_of(*pair).step % self._every == 0):
                lines.append(of_steps[index])
            lines += [line("alert", alert) for alert in due]
        self._write_lines(lines)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _of_steps(self, alike: Alike) -> list[str]:
        if not self._parameters:
            return brief_lines(alike, self._modules)
        held, places, _ = alike
        made = self._blocks.of(held) if isinstance(held, Block) else [line("step", record) for record in held]
        return [made[place] for place in places]

    def _write_lines(self, lines: Sequence[str]) -> None:
        if self._file is not None:
            self._file.write("".join(lines))
            self._file.flush()


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
