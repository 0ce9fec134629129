"""One JSON object a line: the run, then each step and each alert as it comes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

from gradwatch.errors import SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord

__all__ = ["Jsonl", "plain"]

_NO_JSON_NUMBER = {math.inf: "Infinity", -math.inf: "-Infinity"}


class Jsonl:
    """Writes a line for every record and alert; a file that exists is continued with a new ``"run"`` line.

    Every batch is flushed, so that a run that is killed loses at most what was still on its way.

    Args:
        path: the file; its folder is made where it is missing.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._file: TextIO | None = None

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Open the file and write the line of the run.

        Raises:
            SinkError: the file cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise SinkError(
                f"The JSONL file {str(self._path)!r} cannot be written ({error.strerror}): give a path in "
                "a folder that is yours."
            ) from error
        self._write_lines([("run", run)])

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Append a line for each."""
        self._write_lines([*(("step", record) for record in records), *(("alert", alert) for alert in alerts)])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_lines(self, entries: Sequence[tuple[str, object]]) -> None:
        if self._file is None:
            return
        for kind, entry in entries:
            line = json.dumps({"kind": kind, **plain(entry)}, allow_nan=False, ensure_ascii=False)
            self._file.write(line + "\n")
        self._file.flush()


def plain(value: Any) -> Any:
    """A value of the vocabulary as what JSON knows; numbers that JSON lacks become strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else _NO_JSON_NUMBER.get(value, "NaN")
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value
