"""Runs as tables: a row for each step of an optimizer, the same from a watch and from its JSONL file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gradwatch.errors import ArgumentError, MissingExtraError
from gradwatch.reading import Lines
from gradwatch.records import GroupNorms, StepRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_of", "read"]

# What each row begins with, and its type.
_COLUMNS = {
    "optimizer": "str",
    "step": "int64",
    "time": "float64",
    "norm_before": "float64",
    "norm_after": "float64",
    "clip_ratio": "float64",
    "max_norm": "float64",
    "clipped": "bool",
    "skipped": "bool",
    "nonfinite": "bool",
    "backward_passes": "int64",
    "loss_scale": "float64",
    "loop_step": "float64",
    "run": "str",
}


def frame_of(records: Iterable[StepRecord], run: str, parameters: bool = False) -> pd.DataFrame:
    """The records of a run as a table; its columns are those of ``read``."""
    return _frame(_row(record, run, parameters) for record in records)


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The steps in a JSONL file, also of one that was torn: a row for each, as ``Watch.to_frame`` gives them.

    Columns: ``optimizer``, ``step``, ``time`` (Unix time in seconds), ``norm_before``, ``norm_after``,
    ``clip_ratio``, ``max_norm`` (NaN: no limit), ``clipped``, ``skipped``, ``nonfinite``, ``backward_passes``,
    ``loss_scale`` and ``loop_step`` (NaN: none), ``run``, then ``LINE.before`` and ``LINE.after`` for each line
    of the report, and the same for parameters where the file has them. Of the norms of lines nine digits are kept
    in a file.

    ``frame.attrs["alerts"]`` is the list of the file's alerts, each as it was written, and ``attrs["torn"]`` the
    number of lines that could not be read.

    Args:
        path: the file. What was put aside as ``PATH.1``, ``PATH.2``, ... is read before it.

    Raises:
        ArgumentError: there is no such file, or nothing in it is a run of gradwatch.
        MissingExtraError: pandas is not installed.
    """
    lines = Lines(path)
    alerts: list[Mapping[str, Any]] = []
    rows = list(_rows(lines, alerts))
    if not rows and lines.torn:
        raise ArgumentError(
            f"The file {str(path)!r} holds no step of gradwatch: give a file that a Jsonl has written."
        )
    frame = _frame(rows)
    frame.attrs.update(alerts=alerts, torn=lines.torn)
    return frame


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("A table of the steps", "pandas", "pandas") from error
    made = pd.DataFrame(list(rows), columns=None)
    made = made.reindex(columns=[*_COLUMNS, *(name for name in made.columns if name not in _COLUMNS)])
    return made.astype(_COLUMNS)


def _row(record: StepRecord, run: str, parameters: bool) -> dict[str, Any]:
    row = {name: getattr(record, name, run) for name in _COLUMNS}
    row["nonfinite"] = bool(record.nonfinite)
    row |= _columns(record.modules)
    return row | _columns(record.parameters) if parameters else row


def _columns(norms: Mapping[str, GroupNorms]) -> dict[str, float]:
    sides = ("before", "after")
    return {f"{name}.{side}": norm for name, pair in norms.items() for side, norm in zip(sides, pair, strict=True)}


def _rows(lines: Lines, alerts: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of steps, each under the run that was begun last; alerts are put into their list."""
    run = ""
    for entry, value in lines:
        if isinstance(value, StepRecord):
            yield _row(value, run, parameters=True)
        elif value is not None:
            alerts.append({name: field for name, field in entry.items() if name != "kind"})
        elif entry["kind"] == "run":
            run = str(entry.get("run", ""))
