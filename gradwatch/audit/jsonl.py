"""The norms in gradwatch's own JSONL file, of either form of its lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradwatch.audit.curves import EXACT, Curve, Log, Norms, Parts, Side
from gradwatch.errors import ArgumentError
from gradwatch.reading import Lines
from gradwatch.records import GroupNorms, StepRecord

__all__ = ["logs_of"]

_SIDES: tuple[Side, Side] = ("before", "after")

# A factor times a gradient is rounded to the gradient's type, at the worst bfloat16 with its 8 bits.
_TYPES_ROUNDING = 2.0**-8

_NINE_DIGITS = 1e-8

# Beyond this torch's own norm, by which a clip scales, is not the true one (docs/rules.md).
_TORCHS_ERROR = 0.02


def logs_of(path: Path) -> list[Log]:
    """Each run in the file, oldest first.

    Raises:
        ArgumentError: the file cannot be read, or holds no step of gradwatch.
    """
    lines = Lines(path)
    runs: dict[tuple[str, str], dict[str, _Optimizer]] = {}
    optimizers: dict[str, _Optimizer] = runs.setdefault(("", ""), {})
    for entry, value in lines:
        if isinstance(value, StepRecord):
            optimizers.setdefault(value.optimizer, _Optimizer()).take(value, entry)
        elif entry["kind"] == "run":
            optimizers = runs.setdefault((str(entry.get("run", "")), str(entry.get("time", ""))), {})
    held = {run: optimizers for run, optimizers in runs.items() if optimizers}
    if not held:
        known = "a run of gradwatch without a step" if len(runs) > 1 else "no run of gradwatch"
        raise ArgumentError(
            f"The file {str(path)!r} holds {known}: give one that a Jsonl has written at least one step to."
        )
    logs = [_log(run if len(held) > 1 else "", optimizers) for (run, _), optimizers in held.items()]
    if lines.torn:
        count = "1 line" if lines.torn == 1 else f"{lines.torn} lines"
        logs[-1].remarks.append(f"{count} of the file could not be read.")
    return logs


def _log(run: str, optimizers: Mapping[str, _Optimizer]) -> Log:
    norms = [optimizer.norms(name) for name, optimizer in optimizers.items()]
    log = Log(run, "JSONL of gradwatch", norms, EXACT, own=True)
    for name, optimizer in optimizers.items():
        lines, parameters = len(optimizer.lines), len(optimizer.parameters)
        log.understood.append(f"{name}: an optimizer; lines of the report: {lines}, parameters: {parameters}")
        above = sum(optimizer.above)
        if above:
            log.remarks.append(
                f"{name}: the norm after clipping is above max_norm at {above} steps; a brief line does not say "
                "whether that clip call was given all gradients."
            )
    return log


@dataclass
class _Optimizer:
    """The numbers of one optimizer's steps, by step."""

    steps: list[int] = field(default_factory=list)
    whole: list[GroupNorms] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    clipping: list[float] = field(default_factory=list)
    above: list[bool] = field(default_factory=list)
    lines: dict[str, list[tuple[int, GroupNorms]]] = field(default_factory=dict)
    parameters: dict[str, list[tuple[int, GroupNorms]]] = field(default_factory=dict)

    def take(self, record: StepRecord, entry: Mapping[str, Any]) -> None:
        self.steps.append(record.step)
        self.whole.append(GroupNorms(record.norm_before, record.norm_after))
        ratio = entry.get("clip_ratio")
        self.ratio.append(ratio if isinstance(ratio, float) else math.nan)
        limit = _limit(record, entry.get("clips"))
        self.limit.append(limit)
        self.clipping.append(float(record.max_norm is not None))
        untold = record.max_norm is not None and math.isnan(limit) and "clips" not in entry
        self.above.append(untold and record.norm_after > (record.max_norm or 0.0) * (1 + _TORCHS_ERROR))
        for held, read in ((self.lines, record.modules), (self.parameters, record.parameters)):
            for name, pair in read.items():
                held.setdefault(name, []).append((record.step, pair))

    def norms(self, name: str) -> Norms:
        parts = [(self.lines, False), (self.parameters, True)]
        return Norms(
            name,
            _sides(name, list(zip(self.steps, self.whole, strict=True))),
            ratio=_known(f"{name}.clip_ratio", self.steps, self.ratio),
            limit=_known(f"{name}.max_norm", self.steps, self.limit),
            clipping=_curve(name, self.steps, self.clipping),
            parts=tuple(
                Parts(tuple(Norms(part, _sides(part, rows)) for part, rows in held.items()), disjoint)
                for held, disjoint in parts
                if held
            ),
        )


def _limit(record: StepRecord, clips: Any) -> float:
    """What the norm of the whole may be at most; NaN where no clip call is known to have been given all of it.

    A clip scales by the norm that torch has computed, and can be no more exact than that and than the type of the
    gradients are. A brief line has no clip calls, but where all lines were scaled by one factor it was one call.
    """
    if record.max_norm is None:
        return math.nan
    if not isinstance(clips, list):
        return record.max_norm * (1.0 + _TORCHS_ERROR) if _is_scaled_as_one(record) else math.nan
    try:
        (clip,) = clips
        returned, norm_type = float(clip["norm_returned"]), float(clip["norm_type"])
        scope = float(clip["scope_before"] if clip.get("scope_before") is not None else returned)
        rounding = float(clip.get("rounding", 0.0))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return math.nan
    is_whole = math.isclose(scope, record.norm_before, rel_tol=_TORCHS_ERROR)
    if norm_type != 2.0 or not is_whole or not 0.0 < returned < math.inf:
        return math.nan
    return record.max_norm * max(1.0, record.norm_before / returned) * (1.0 + rounding)


def _is_scaled_as_one(record: StepRecord) -> bool:
    """Whether two lines or more, which hold all of the gradient, were scaled down by the same factor."""
    pairs = [pair for pair in record.modules.values() if 0.0 < pair.norm_before < math.inf]
    factors = [pair.norm_after / pair.norm_before for pair in pairs]
    held = math.hypot(*(pair.norm_before for pair in pairs))
    if len(factors) < 2 or not factors[0] < 1.0 or held < record.norm_before * (1.0 - _NINE_DIGITS):
        return False
    return all(math.isclose(factor, factors[0], rel_tol=_TYPES_ROUNDING) for factor in factors)


def _sides(name: str, rows: list[tuple[int, GroupNorms]]) -> dict[Side, Curve]:
    steps = [step for step, _ in rows]
    return {
        side: _curve(f"{name}.norm_{side}", steps, [pair[at] for _, pair in rows])
        for at, side in enumerate(_SIDES)
    }


def _known(name: str, steps: list[int], values: list[float]) -> Curve | None:
    return None if all(map(math.isnan, values)) else _curve(name, steps, values)


def _curve(name: str, steps: list[int], values: list[float]) -> Curve:
    return Curve(name, np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))
