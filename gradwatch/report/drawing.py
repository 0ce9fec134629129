"""What the charts of a page draw: the numbers of each optimizer, thinned out, as JSON holds them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gradwatch.alerts import Incident
from gradwatch.blocks.arrays import FloatArray
from gradwatch.report.series import Series
from gradwatch.report.thinning import cells, extremes, spans

__all__ = ["drawing"]

# Shares of a run that are told apart, about one for two pixels of a chart; cells of a heat map in all.
_SHARES, _CELLS = 400, 40_000

# Steps to either side of where an incident begins that are all drawn, and of how many incidents.
_NEAR, _MOST = 100, 20


def drawing(one: Series, incidents: Sequence[Incident], began: float) -> dict[str, Any]:
    """The charts of an optimizer.

    Args:
        one: its steps.
        incidents: of the whole run, in the order in which the page counts them.
        began: Unix time in seconds at which the run began.

    Returns:
        ``steps``, ``seconds`` since the run began, ``before``, ``after``, ``ratio`` and ``limit``: a number for
        each step that is drawn, None where it is not finite. ``marks``: by their kind, stretches, as first and
        last step and how many. ``heat``: the ``lines``, the step that each column ``begins`` with, and by line
        the norms of its ``cells``, -1 where not finite, None where there is no gradient. ``incidents``.
    """
    curves = np.stack([one.before, one.after, one.ratio, one.limit], axis=1)
    marks = {"not finite": one.nonfinite, "zero": one.zero, "skipped": one.skipped}
    stretches = {kind: spans(marked, _SHARES) for kind, marked in marks.items() if marked.any()}
    # What is marked can be looked at.
    kept = {row for ranges in stretches.values() for first, last, _ in ranges for row in (first, last)}
    kept.update(extremes(curves, _SHARES).tolist())
    numbers = [step.step for step in one.steps]
    lanes = list(_lanes(incidents, one.optimizer))
    for lane in lanes[:_MOST]:
        row = bisect_left(numbers, lane["from"])
        kept.update(range(max(row - _NEAR, 0), min(row + _NEAR, len(numbers))))
    rows = np.array(sorted(kept), dtype=np.int64)
    return {
        "name": one.optimizer,
        "whole": len(one.steps),
        "steps": [numbers[row] for row in rows],
        "seconds": _rounded(np.array([one.steps[row].time - began for row in rows])),
        **{
            name: _rounded(curve[rows])
            for name, curve in zip(("before", "after", "ratio", "limit"), curves.T, strict=True)
        },
        "marks": {
            kind: [(numbers[first], numbers[last], count) for first, last, count in ranges]
            for kind, ranges in stretches.items()
        },
        "heat": _heat(one, numbers),
        "incidents": lanes,
    }


def _heat(one: Series, numbers: Sequence[int]) -> dict[str, Any]:
    shares = max(min(_SHARES, _CELLS // max(len(one.lines), 1)), 1)
    begins, worst = cells(one.line_norms, one.line_missing, shares)
    return {
        "lines": one.lines,
        "begins": [numbers[row] for row in begins],
        "cells": [_rounded(line) for line in worst],
    }


def _lanes(incidents: Iterable[Incident], optimizer: str) -> Iterator[dict[str, Any]]:
    """Where each incident that this optimizer has a part in begins and, where it is over for it, ends."""
    for place, incident in enumerate(incidents, 1):
        own = [alert for alert in incident.alerts if alert.optimizer == optimizer]
        if own:
            newest = {alert.key: alert.state for alert in own}
            lasts = any(state != "resolved" for state in newest.values())
            yield {
                "number": place,
                "title": incident.title,
                "severity": incident.severity,
                "from": min(alert.step for alert in own),
                "to": None if lasts else max(alert.step for alert in own),
            }


def _rounded(numbers: FloatArray) -> list[float | None]:
    """Four digits, which no screen tells apart."""
    rounded = (float(f"{number:.4g}") for number in numbers.tolist())
    return [number if math.isfinite(number) else None for number in rounded]
