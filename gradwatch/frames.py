"""Runs as tables: a row for each step of an optimizer, the same from a watch and from its JSONL file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch.errors import ArgumentError, MissingExtraError
from gradwatch.records import GroupNorms, StepRecord, clip_ratio

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_of", "read"]

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

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
    "run": "str",
}


def frame_of(records: Iterable[StepRecord], run: str, parameters: bool = False) -> pd.DataFrame:
    """The records of a run as a table; its columns are those of ``read``."""
    return _frame(_row_of_record(record, run, parameters) for record in records)


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The steps in a JSONL file, also of one that was torn: a row for each, as ``Watch.to_frame`` gives them.

    Columns: ``optimizer``, ``step``, ``time`` (Unix time in seconds), ``norm_before``, ``norm_after``,
    ``clip_ratio``, ``max_norm`` (NaN: no limit), ``clipped``, ``skipped``, ``nonfinite``, ``backward_passes``,
    ``loss_scale`` (NaN: none), ``run``, then ``LINE.before`` and ``LINE.after`` for each line of the report, and
    the same for parameters where the file has them. Of the norms of lines nine digits are kept in a file.

    ``frame.attrs["alerts"]`` is the list of the file's alerts, each as it was written, and ``attrs["torn"]`` the
    number of lines that could not be read.

    Args:
        path: the file. What was put aside as ``PATH.1``, ``PATH.2``, ... is read before it.

    Raises:
        ArgumentError: there is no such file, or nothing in it is a run of gradwatch.
        MissingExtraError: pandas is not installed.
    """
    path = Path(path)
    alerts: list[dict[str, Any]] = []
    torn: list[str] = []
    rows = list(_rows(_entries(path, torn), alerts, torn))
    if not rows and torn:
        raise ArgumentError(
            f"The file {str(path)!r} holds no step of gradwatch: give a file that a Jsonl has written."
        )
    frame = _frame(rows)
    frame.attrs.update(alerts=alerts, torn=len(torn))
    return frame


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("A table of the steps", "pandas", "pandas") from error
    made = pd.DataFrame(list(rows), columns=None)
    made = made.reindex(columns=[*_COLUMNS, *(name for name in made.columns if name not in _COLUMNS)])
    return made.astype(_COLUMNS)


def _row_of_record(record: StepRecord, run: str, parameters: bool) -> dict[str, Any]:
    row = {name: getattr(record, name, run) for name in _COLUMNS}
    row["nonfinite"] = bool(record.nonfinite)
    row |= _columns(record.modules)
    return row | _columns(record.parameters) if parameters else row


def _columns(norms: Mapping[str, GroupNorms]) -> dict[str, float]:
    sides = ("before", "after")
    return {f"{name}.{side}": norm for name, pair in norms.items() for side, norm in zip(sides, pair, strict=True)}


def _entries(path: Path, torn: list[str]) -> Iterator[dict[str, Any]]:
    aside = sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: file.suffix)
    older = [file for file in aside if file.suffix[1:].isdecimal()]
    files = [*sorted(older, key=lambda file: -int(file.suffix[1:])), *([path] if path.is_file() else [])]
    if not files:
        raise ArgumentError(f"There is no file {str(path)!r}: give one that a Jsonl has written.")
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    kind = entry["kind"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    torn += [line] if line.strip() else []
                    continue
                if isinstance(kind, str):
                    yield entry


def _rows(
    entries: Iterable[dict[str, Any]], alerts: list[dict[str, Any]], torn: list[str]
) -> Iterator[dict[str, Any]]:
    """The rows of steps, each under the run that was begun last; alerts are put into their list."""
    run: Mapping[str, Any] = {}
    for entry in entries:
        kind = entry.pop("kind")
        if kind == "run":
            run = entry
        elif kind == "alert":
            alerts.append(entry)
        elif kind == "step":
            try:
                row = _row_of_line(entry, run)
            except (ValueError, TypeError, KeyError):
                # Of another program, or behind a line of the run that was lost.
                torn.append(str(entry))
            else:
                yield row


def _row_of_line(entry: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    before, after = _number(entry["norm_before"]), _number(entry["norm_after"])
    modules = entry.get("modules", {})
    if isinstance(modules, list):
        modules = dict(zip(run.get("modules", {}).get(entry["optimizer"], ()), modules, strict=True))
    return {
        "optimizer": entry["optimizer"],
        "step": entry["step"],
        "time": _number(entry["time"]),
        "norm_before": before,
        "norm_after": after,
        "clip_ratio": clip_ratio(before, after),
        "max_norm": _number(entry.get("max_norm")),
        "clipped": entry.get("clipped", False),
        "skipped": entry.get("skipped", False),
        "nonfinite": bool(entry.get("nonfinite", ())),
        "backward_passes": entry.get("backward_passes", 1),
        "loss_scale": _number(entry.get("loss_scale")),
        "run": run.get("run", ""),
        **_columns({name: _norms(pair) for name, pair in modules.items()}),
        **_columns({name: _norms(pair) for name, pair in entry.get("parameters", {}).items()}),
    }


def _norms(pair: Any) -> GroupNorms:
    """Both norms, from either form of a line."""
    if isinstance(pair, Mapping):
        pair = list(pair.values())
    return GroupNorms(*map(_number, pair)) if isinstance(pair, list) else GroupNorms(_number(pair), _number(pair))


def _number(value: Any) -> float:
    return math.nan if value is None else float(_NUMBERS.get(value, value))
