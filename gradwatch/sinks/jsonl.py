"""One JSON object a line: the run, then each step and each alert as it comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from gradwatch.blocks import Block, Steps
from gradwatch.errors import SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.encoding import line
from gradwatch.sinks.lines import BlockLines
from gradwatch.sinks.ordering import in_order

__all__ = ["Jsonl"]


class Jsonl:
    """Writes a line for every record and alert; a file that exists is continued with a new ``"run"`` line.

    Every batch is flushed, so that a run that is killed loses at most what was still on its way.

    Args:
        path: the file; its folder is made where it is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: TextIO | None = None
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
        for held, places, at in steps.alike:
            made = self._blocks.of(held) if isinstance(held, Block) else [line("step", record) for record in held]
            for place, index in zip(places, at, strict=True):
                of_steps[index] = made[place]
        lines = []
        for index, (_, due) in enumerate(in_order(steps, alerts)):
            lines += of_steps[index : index + 1]
            lines += [line("alert", alert) for alert in due]
        self._write_lines(lines)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

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
