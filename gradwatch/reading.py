"""What a run has left in a JSONL file, its own or a flight recorder's: as values, as a table, and in words."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch.errors import ArgumentError, GradwatchError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Recorded", "read", "recorded", "told"]

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

# What of a step is a number or a word by itself, and so a column.
_COLUMNS = (
    "optimizer", "step", "time", "norm_before", "norm_after", "clip_ratio", "max_norm", "clipped",
    "backward_passes", "skipped", "loss_scale",
)  # fmt: skip

# Steps and parameters that one screen holds.
_SHOWN = 10


@dataclass
class Recorded:
    """The lines of a file by their kind, oldest first; each as it was written, its fields by name."""

    run: list[Mapping[str, Any]] = field(default_factory=list)
    flight: list[Mapping[str, Any]] = field(default_factory=list)
    step: list[Mapping[str, Any]] = field(default_factory=list)
    alert: list[Mapping[str, Any]] = field(default_factory=list)


def recorded(path: str | os.PathLike[str]) -> Recorded:
    """Read a file; half a line, as a run that was killed leaves it, is passed over.

    Raises:
        ArgumentError: it cannot be read, or no run is in it.
    """
    found = Recorded()
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for entry in map(_entry, file):
                if entry.get("kind") in vars(found):
                    vars(found)[entry["kind"]].append(entry)
    except OSError as error:
        raise ArgumentError(f"{str(path)!r} cannot be read ({error.strerror}): give a JSONL file.") from error
    if not found.run:
        raise ArgumentError(f"{str(path)!r} holds no run of gradwatch: give a file that its Jsonl sink wrote.")
    return found


def read(path: str | os.PathLike[str], parameters: bool = False) -> pd.DataFrame:
    """The steps in a JSONL file, its own or a flight recorder's, as a pandas DataFrame.

    Args:
        path: the file; half a line at its end is passed over.
        parameters: columns for each parameter as well.

    Returns:
        A row for each step of an optimizer: its numbers, and for each line of the report the norm before clipping
        and after it, as ``<line>.before`` and ``<line>.after``.

    Raises:
        ArgumentError: it cannot be read, or no run is in it.
        GradwatchError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise GradwatchError(
            "read needs the package 'pandas', which is not installed: pip install pandas."
        ) from error
    tables = ("modules", "parameters") if parameters else ("modules",)
    return pd.DataFrame([_row(step, tables) for step in recorded(path).step])


def told(path: str | os.PathLike[str]) -> Iterator[str]:
    """What is in a file, in words, line by line.

    Raises:
        ArgumentError: it cannot be read, or no run is in it.
    """
    found = recorded(path)
    yield f"{found.run[-1].get('run')}: {len(found.step)} steps, {len(found.alert)} alerts"
    for flight in found.flight:
        yield f"Written by the flight recorder, with the last {flight.get('steps')} steps:"
        yield from (f"  {part}" for part in str(flight.get("reason")).splitlines())
    yield from (str(alert.get("words") or alert.get("message")) for alert in found.alert[-_SHOWN:])
    yield from (_in_words(step) for step in found.step[-_SHOWN:])
    if found.flight and found.step:
        yield from _parameters(found.step[-1])


def _in_words(step: Mapping[str, Any]) -> str:
    calls = ", ".join(f"{clip['function']} to {clip['limit']:g}" for clip in step["clips"]) or "not clipped"
    before, after = _number(step["norm_before"]), _number(step["norm_after"])
    marks = [mark for mark in ("missing", "nonfinite", "unwritten", "stale", "leaked", "frozen") if step.get(mark)]
    odd = "".join(f", {len(step[mark])} {mark}" for mark in marks)
    return f"step {step['step']} of {step['optimizer']}: {before:.4g} -> {after:.4g}, {calls}{odd}"


def _parameters(step: Mapping[str, Any]) -> Iterator[str]:
    """The largest gradients of a step, first those that are no number."""
    norms = {
        name: (_number(pair["norm_before"]), _number(pair["norm_after"]))
        for name, pair in step["parameters"].items()
    }
    largest = sorted(norms, key=lambda name: (math.isfinite(norms[name][0]), -norms[name][0]))
    yield f"parameters of step {step['step']}, {min(_SHOWN, len(largest))} of {len(largest)}:"
    yield from (f"  {name}: {norms[name][0]:.4g} -> {norms[name][1]:.4g}" for name in largest[:_SHOWN])


def _row(step: Mapping[str, Any], tables: tuple[str, ...]) -> dict[str, Any]:
    row = {name: _number(step.get(name)) for name in _COLUMNS}
    for table in tables:
        for name, pair in step.get(table, {}).items():
            row[f"{name}.before"], row[f"{name}.after"] = _number(pair["norm_before"]), _number(pair["norm_after"])
    return row


def _number(value: Any) -> Any:
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def _entry(text: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(text)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
