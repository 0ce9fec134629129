"""One JSON object a line: the run, then each step and each alert as it comes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from gradwatch.errors import SinkError
from gradwatch.records import Alert, Health, RunInfo, StepRecord
from gradwatch.sinks.ordering import in_order

__all__ = ["Jsonl", "plain"]

_NO_JSON_NUMBER = {math.inf: "Infinity", -math.inf: "-Infinity"}


class Jsonl:
    """Writes a line for every record and alert; a file that exists is continued with a new ``"run"`` line.

    Every batch is flushed, so that a run that is killed loses at most what was still on its way.

    Args:
        path: the file; its folder is made where it is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: TextIO | None = None

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
            self._write_lines([("run", run)])
        except OSError as error:
            raise SinkError(
                f"The JSONL file {str(self._path)!r} cannot be written ({error.strerror}): give a path in "
                "a folder that is yours."
            ) from error

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Append a line for each, an alert behind the step that it was raised on."""
        entries: list[tuple[str, object]] = []
        for record, due in in_order(records, alerts):
            if record is not None:
                entries.append(("step", record))
            entries += [("alert", alert) for alert in due]
        self._write_lines(entries)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _write_lines(self, entries: Sequence[tuple[str, object]]) -> None:
        if self._file is None:
            return
        # Escaped to ASCII, a name cannot hold what a reader takes for the end of a line, or what UTF-8 lacks.
        lines = [json.dumps({"kind": kind, **plain(entry)}, allow_nan=False) + "\n" for kind, entry in entries]
        self._file.writelines(lines)
        self._file.flush()


def plain(value: Any) -> Any:
    """A value of the vocabulary as what JSON knows; numbers that JSON lacks become strings."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return _number(value)


def _number(value: Any) -> float | str:
    """A float, also of numpy; what is no number at all is kept in words rather than lost with its line."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else _NO_JSON_NUMBER.get(number, "NaN")


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
