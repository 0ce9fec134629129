"""What a run has left in a JSONL file, its own or a flight recorder's, as the values that were written.

A file may be torn, cut or changed by others: each line that cannot be read is passed over and counted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from gradwatch.alerts import Alert, Cause, Severity, State
from gradwatch.errors import ArgumentError
from gradwatch.records import ClipCall, GroupNorms, StepRecord, clip_ratio

__all__ = ["Lines"]

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass
class Lines:
    """The lines of a file, oldest first: of a run and of a flight as they were written, of others their values.

    What was put aside as ``PATH.1``, ``PATH.2``, ... is read before it.

    Attributes:
        path: the file.
        torn: how many lines could not be read, so far.
    """

    path: str | os.PathLike[str]
    torn: int = 0
    _modules: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[Mapping[str, Any], StepRecord | Alert | None]]:
        """Each line, and what it is where it is a step or an alert.

        Raises:
            ArgumentError: there is no such file, or it cannot be read.
        """
        kinds: Mapping[str, Callable[[dict[str, Any]], StepRecord | Alert | None]] = {
            "run": self._begin,
            "flight": lambda _: None,
            "step": self._step,
            "alert": _alert,
        }
        for text in self._texts():
            try:
                entry = json.loads(text)
                yield entry, kinds[entry["kind"]](entry)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                self.torn += bool(text.strip())

    def _texts(self) -> Iterator[str]:
        try:
            for file in self._files():
                with file.open(encoding="utf-8", errors="replace") as lines:
                    yield from lines
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ArgumentError(
                f"The file {str(self.path)!r} cannot be read ({reason}): give one that a Jsonl has written."
            ) from error

    def _files(self) -> list[Path]:
        """In the order in which they were written."""
        path = Path(self.path)
        aside = (file for file in path.parent.glob("*") if file.name.startswith(f"{path.name}."))
        numbered = [file for file in aside if file.suffix[1:].isdecimal() and file.stem == path.name]
        newest_last = sorted(numbered, key=lambda file: -int(file.suffix[1:]))
        return [*newest_last, *([path] if path.exists() or not newest_last else [])]

    def _begin(self, entry: Mapping[str, Any]) -> None:
        names = entry.get("modules", {})
        self._modules = names if isinstance(names, dict) else {}

    def _step(self, entry: dict[str, Any]) -> StepRecord:
        """A step, of either form of its line; what the brief one leaves out is as usual."""
        modules = entry.get("modules", {})
        if isinstance(modules, list):
            modules = dict(zip(self._modules.get(entry["optimizer"], ()), modules, strict=True))
        before, after = _number(entry["norm_before"]), _number(entry["norm_after"])
        scale = entry.get("loss_scale")
        return StepRecord(
            optimizer=str(entry["optimizer"]),
            step=_step_number(entry["step"]),
            time=_number(entry["time"]),
            norm_before=before,
            norm_after=after,
            clip_ratio=clip_ratio(before, after),
            max_norm=None if entry.get("max_norm") is None else _number(entry["max_norm"]),
            clipped=bool(entry.get("clipped", False)),
            clips=tuple(map(_clip, entry.get("clips", ()))),
            modules={str(name): _norms(pair) for name, pair in modules.items()},
            parameters={name: _norms(pair) for name, pair in entry.get("parameters", {}).items()},
            backward_passes=int(entry.get("backward_passes", 1)),
            skipped=bool(entry.get("skipped", False)),
            loss_scale=None if scale is None else _number(scale),
            loop_step=None if entry.get("loop_step") is None else int(entry["loop_step"]),
            missing=_names(entry, "missing"),
            nonfinite=_names(entry, "nonfinite"),
            missing_modules=_names(entry, "missing_modules"),
            unwritten=_names(entry, "unwritten"),
            stale=_names(entry, "stale"),
            leaked=_names(entry, "leaked"),
            frozen=_names(entry, "frozen"),
        )


def _number(value: Any) -> float:
    """A number, of JSON's own or by its name; null is NaN.

    Raises:
        ValueError: it is none.
    """
    return math.nan if value is None else float(_NUMBERS.get(value, value))


def _names(entry: Mapping[str, Any], what: str) -> tuple[str, ...]:
    return tuple(map(str, entry.get(what, ())))


def _step_number(value: Any) -> int:
    if isinstance(value, int) and 0 <= value < 1 << 53:
        return value
    raise ValueError("no number of a step")


def _norms(pair: Any) -> GroupNorms:
    """Both norms, from either form of a line."""
    if isinstance(pair, Mapping):
        pair = list(pair.values())
    return GroupNorms(*map(_number, pair)) if isinstance(pair, list) else GroupNorms(_number(pair), _number(pair))


def _clip(entry: Mapping[str, Any]) -> ClipCall:
    return ClipCall(str(entry["function"]), _number(entry["limit"]))


def _alert(entry: Mapping[str, Any]) -> Alert:
    if entry["severity"] not in get_args(Severity) or entry["state"] not in get_args(State):
        raise ValueError("an alert of another program")
    module, cause = entry.get("module"), entry.get("cause")
    return Alert(
        rule=str(entry["rule"]),
        severity=entry["severity"],
        state=entry["state"],
        optimizer=str(entry["optimizer"]),
        module=None if module is None else str(module),
        step=_step_number(entry["step"]),
        value=_number(entry.get("value")),
        threshold=_number(entry.get("threshold")),
        message=str(entry["message"]),
        cause=None if cause is None else _cause(cause),
        time=_number(entry.get("time")),
        words=str(entry.get("words", "")),
        remedy=str(entry.get("remedy", "")),
    )


def _cause(entry: Mapping[str, Any]) -> Cause:
    evidence = {name: _said(value) for name, value in entry["evidence"].items()}
    return Cause(str(entry["kind"]), str(entry["where"]), evidence, str(entry["remedy"]))


def _said(value: Any) -> float | int | str:
    if isinstance(value, str):
        return _NUMBERS.get(value, value)
    return value if isinstance(value, (int, float)) else str(value)
