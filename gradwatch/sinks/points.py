"""What is drawn of steps, as points with names: for loggers that take one number, or one row, at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gradwatch.blocks import Steps
from gradwatch.records import StepRecord
from gradwatch.sinks.curves import curves

__all__ = ["Point", "points", "tags"]


class Point(NamedTuple):
    """The numbers of one step of one optimizer.

    Attributes:
        optimizer: its name.
        step: of the optimizer.
        at: what it is drawn against: the loop's own step, and the optimizer's where there is none.
        time: Unix time in seconds.
        values: by tag.
    """

    optimizer: str
    step: int
    at: int
    time: float
    values: dict[str, float]


def points(records: Sequence[StepRecord], prefix: str = "gradwatch") -> Iterator[Point]:
    """A point for each step; those of one optimizer in their order."""
    for shown in curves(Steps.of(records)):
        names = tags(prefix, shown.optimizer, shown.modules)
        for step, at, time, row in zip(shown.steps, shown.axis, shown.times, shown.norms.tolist(), strict=True):
            yield Point(shown.optimizer, step, at, time, dict(zip(names, row, strict=True)))


def tags(prefix: str, optimizer: str, modules: Sequence[str]) -> list[str]:
    """``PREFIX/OPTIMIZER/norm_before``, ``norm_after``, ``clip_ratio``, then both norms of each module."""
    sides = ("norm_before", "norm_after")
    whole = [f"{prefix}/{optimizer}/{name}" for name in (*sides, "clip_ratio")]
    return whole + [f"{prefix}/{optimizer}/{module}/{side}" for module in modules for side in sides]
