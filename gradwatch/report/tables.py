"""The tables of a report, as text is made of them and pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gradwatch.blocks.arrays import BoolArray, FloatArray
from gradwatch.records import StepRecord
from gradwatch.report.series import Series
from gradwatch.sinks import figures

__all__ = [
    "Table",
    "by_line",
    "by_optimizer",
    "by_parameter",
    "by_step",
    "by_stretch",
    "limits",
    "median",
    "number",
    "share",
]

# Steps and parameters that a screen holds.
SHOWN = 10


class Table(NamedTuple):
    """Cells as they are read.

    Attributes:
        title: what it is a table of.
        columns: their heads; of the first column, what a row is.
        rows: as many cells each.
        words: columns that hold no number, besides the first.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: frozenset[str] = frozenset()

    def is_number(self, place: int) -> bool:
        """Whether that column holds numbers, which are set to the right."""
        return place > 0 and self.columns[place] not in self.words


def number(value: float | None) -> str:
    """Three digits."""
    return figures.number(value, 3)


def share(marked: BoolArray) -> str:
    """How many of them are, in percent where some are and some are not."""
    count, whole = int(marked.sum()), len(marked)
    if count in (0, whole):
        return "all" if count else "none"
    percent = 100 * count / whole
    # Two digits of 99.8 are 1e+02, and 100 would be all.
    return f"{count} ({'>99' if percent >= 99.5 else format(percent, '.2g')}%)"


def by_optimizer(all_series: Sequence[Series]) -> Table:
    """A row for each: what its norms were, and how often clipping took hold."""
    rows = [
        (
            one.optimizer,
            number(median(one.before[~one.missing])),
            number(_largest(one.before[~one.missing])),
            number(median(one.after[~one.unconsumed])),
            limits(one.limit),
            share(one.clipped),
            share(one.nonfinite),
            share(one.zero),
            share(one.skipped),
        )
        for one in all_series
    ]
    columns = (
        "optimizer", "before", "largest", "after", "limit", "clipped", "not finite", "zero", "skipped",
    )  # fmt: skip
    return Table("Norms before and after clipping, in the median", columns, rows)


def by_line(one: Series) -> Table:
    """A row for each line of the report: its norm before clipping."""
    rows = []
    for name, norms, missing in zip(one.lines, one.line_norms.T, one.line_missing.T, strict=True):
        there = norms[~missing]
        rows.append(
            (
                name,
                *map(number, (_smallest(there), median(there), _largest(there))),
                number(None if missing[-1] else norms[-1]),
                share(there == 0.0) if len(there) else "none",
                share(~np.isfinite(there)) if len(there) else "none",
                share(missing),
            )
        )
    columns = ("line", "smallest", "median", "largest", "last", "zero", "not finite", "no gradient")
    return Table(f"Lines of {one.optimizer}, norms before clipping", columns, rows)


def by_stretch(one: Series, stretches: int = 20) -> Table:
    """A row for each of so many stretches of the run."""
    rows = []
    edges = np.linspace(0, len(one.steps), min(len(one.steps), stretches) + 1).astype(int).tolist()
    for a, b in pairwise(edges):
        first, last = one.steps[a].step, one.steps[b - 1].step
        norms, unconsumed = one.before[a:b][~one.missing[a:b]], one.unconsumed[a:b]
        after = one.after[a:b][~unconsumed]
        nothing = unconsumed | ((one.before[a:b] == 0.0) & (one.after[a:b] == 0.0))
        rows.append(
            (
                str(first) if first == last else f"{first} to {last}",
                *map(number, (_smallest(norms), median(norms), _largest(norms), median(after))),
                number(median(one.ratio[a:b][~nothing])),
                limits(one.limit[a:b]),
                share(one.nonfinite[a:b]),
                share(one.zero[a:b]),
                share(one.skipped[a:b]),
            )
        )
    columns = (
        "steps", "smallest before", "before", "largest before", "after", "ratio", "limit", "not finite", "zero",
        "skipped",
    )  # fmt: skip
    return Table(f"{one.optimizer} over the run, in the median", columns, rows)


def by_step(one: Series) -> Table:
    """The last steps, a row each."""
    rows = [
        (str(step.step), *map(number, figures.of_whole(step)[:2]), _calls(step), ", ".join(_odd(step)))
        for step in one.steps[-SHOWN:]
    ]
    words = ("clipping", "out of the ordinary")
    return Table(f"Last steps of {one.optimizer}", ("step", "before", "after", *words), rows, frozenset(words))


def by_parameter(step: StepRecord) -> Table:
    """The largest gradients of a step, first those that are no number; last the parameters that have none."""
    norms, missing = step.parameters, {*step.missing}
    largest = sorted(
        norms,
        key=lambda name: (name in missing, math.isfinite(norms[name].norm_before), -norms[name].norm_before),
    )
    rows = [(name, *map(number, figures.of_parameter(step, name)[:2])) for name in largest[:SHOWN]]
    title = f"Parameters of step {step.step} of {step.optimizer}, {len(rows)} of {len(norms)}"
    return Table(title, ("parameter", "before", "after"), rows)


def limits(limit: FloatArray) -> str:
    """The limit, or between which it was."""
    known = limit[np.isfinite(limit)]
    if not len(known):
        return "none"
    low, high = number(known.min()), number(known.max())
    return low if low == high else f"{low} to {high}"


def _calls(step: StepRecord) -> str:
    # The brief line of a step has the limit alone.
    calls = [f"{clip.function} to {clip.limit:g}" for clip in step.clips]
    return ", ".join(calls) or ("none" if step.max_norm is None else f"limit {step.max_norm:g}")


def _odd(step: StepRecord) -> Iterator[str]:
    yield from ["skipped"] if step.skipped else []
    for mark in ("missing", "nonfinite", "unwritten", "stale", "leaked", "frozen"):
        if names := getattr(step, mark):
            yield f"{len(names)} {mark}"
    if step.backward_passes != 1:
        yield f"{step.backward_passes} backward passes"


def median(norms: FloatArray) -> float | None:
    """Of those that are finite; NaN where none is, None where there is no norm."""
    return _of_finite(np.median, norms)


def _of_finite(reduce: Callable[[FloatArray], float], norms: FloatArray) -> float | None:
    if not len(norms):
        return None
    finite = norms[np.isfinite(norms)]
    return float(reduce(finite)) if len(finite) else math.nan


def _smallest(norms: FloatArray) -> float | None:
    return _of_finite(np.min, norms)


def _largest(norms: FloatArray) -> float | None:
    return _of_finite(np.max, norms)
