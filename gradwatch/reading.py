"""What a run has left in a JSONL file, its own or a flight recorder's: as values, and in words."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradwatch.errors import ArgumentError

__all__ = ["Recorded", "recorded", "told"]

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

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
                kind = entry.get("kind")
                if isinstance(kind, str) and kind in vars(found):
                    vars(found)[kind].append(entry)
    except OSError as error:
        raise ArgumentError(f"{str(path)!r} cannot be read ({error.strerror}): give a JSONL file.") from error
    if not found.run:
        raise ArgumentError(f"{str(path)!r} holds no run of gradwatch: give a file that its Jsonl sink wrote.")
    return found


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
    for step in found.step[-_SHOWN:]:
        yield from _readable(_in_words, step)
    if found.step and "parameters" in found.step[-1]:
        yield from _readable(_parameters, found.step[-1])


def _readable(say: Callable[[Mapping[str, Any]], Iterator[str]], step: Mapping[str, Any]) -> list[str]:
    """What is said of a step; of a line that a failing disk or another program has changed, that it is none."""
    try:
        return list(say(step))
    except (KeyError, TypeError, ValueError, AttributeError):
        return [f"a line of step {step.get('step')} cannot be read"]


def _in_words(step: Mapping[str, Any]) -> Iterator[str]:
    clips = [f"{clip['function']} to {clip['limit']:g}" for clip in step.get("clips", ())]
    # The brief line of a step has the limit alone.
    limit = step.get("max_norm")
    calls = ", ".join(clips) or ("not clipped" if limit is None else f"a limit of {limit:g}")
    before, after = _number(step["norm_before"]), _number(step["norm_after"])
    marks = [mark for mark in ("missing", "nonfinite", "unwritten", "stale", "leaked", "frozen") if step.get(mark)]
    odd = "".join(f", {_how_many(step[mark])}{mark}" for mark in marks)
    yield f"step {step['step']} of {step['optimizer']}: {before:.4g} -> {after:.4g}, {calls}{odd}"


def _how_many(marked: Any) -> str:
    return f"{len(marked)} " if isinstance(marked, list) else ""


def _parameters(step: Mapping[str, Any]) -> Iterator[str]:
    """The largest gradients of a step, first those that are no number."""
    norms = {
        name: (_number(pair["norm_before"]), _number(pair["norm_after"]))
        for name, pair in step["parameters"].items()
    }
    largest = sorted(norms, key=lambda name: (math.isfinite(norms[name][0]), -norms[name][0]))
    yield f"parameters of step {step['step']}, {min(_SHOWN, len(largest))} of {len(largest)}:"
    yield from (f"  {name}: {norms[name][0]:.4g} -> {norms[name][1]:.4g}" for name in largest[:_SHOWN])


def _number(value: Any) -> Any:
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def _entry(text: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}
