"""Fewer numbers that draw the same picture: no spike, no dip and no mark of a step is lost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gradwatch.blocks.arrays import BoolArray, FloatArray

__all__ = ["NOT_FINITE", "Cells", "cells", "extremes", "spans"]

IntArray = npt.NDArray[np.int64]

# Stands in a cell for a norm that is NaN or Inf: no norm is negative.
NOT_FINITE = -1.0


def extremes(curves: FloatArray, shares: int) -> IntArray:
    """The rows to draw: of each share of the steps the first, the last, and the least and largest of each curve.

    A line through them covers the same pixels as one through all rows, where a share is at most a pixel wide
    (Jugel et al., M4: A Visualization-Oriented Time Series Data Aggregation, VLDB 2014).

    Args:
        curves: ``[steps, curves]``; what is not finite is no extreme.
        shares: how many the steps are divided into.

    Returns:
        Row numbers, ascending, each once.
    """
    kept: set[int] = set()
    finite = np.isfinite(curves)
    low, high = np.where(finite, curves, np.inf), np.where(finite, curves, -np.inf)
    for begin, end in zip(*_shares(len(curves), shares), strict=True):
        least, largest = low[begin:end].argmin(axis=0), high[begin:end].argmax(axis=0)
        kept.update((begin, end - 1), (begin + least).tolist(), (begin + largest).tolist())
    return np.array(sorted(kept), dtype=np.int64)


class Cells(NamedTuple):
    """A table of lines over shares of the steps.

    Attributes:
        begins: ``[shares]``: row number of the first step of each.
        worst: ``[lines, shares]``: ``NOT_FINITE`` where a step of the share is, else NaN where one has no
            gradient, else 0 where one is exactly 0, else the norm that is furthest from the line's median.
    """

    begins: IntArray
    worst: FloatArray


def cells(norms: FloatArray, missing: BoolArray, shares: int) -> Cells:
    """The worst of each line in each share of the steps.

    Args:
        norms: ``[steps, lines]``.
        missing: ``[steps, lines]``: where a line has no gradient at all.
        shares: how many the steps are divided into.
    """
    begins, ends = _shares(len(norms), shares)
    middle = _middle(norms)
    worst = [_worst(norms[a:b], missing[a:b], middle) for a, b in zip(begins, ends, strict=True)]
    return Cells(begins, np.array(worst).reshape(len(begins), norms.shape[1]).T)


def _middle(norms: FloatArray) -> FloatArray:
    """By line, the median of the logarithms of what can be drawn on a scale of them; 0 where nothing can."""
    logs = _logs(norms)
    there = np.isfinite(logs).any(axis=0)
    middle = np.zeros(norms.shape[1])
    middle[there] = np.nanmedian(np.where(np.isfinite(logs), logs, np.nan)[:, there], axis=0)
    return middle


def _worst(norms: FloatArray, missing: BoolArray, middle: FloatArray) -> FloatArray:
    odd = np.abs(_logs(norms) - middle)
    furthest = np.where(np.isfinite(odd), odd, -1.0).argmax(axis=0)
    found: FloatArray = np.take_along_axis(norms, furthest[None], axis=0)[0]
    found[(norms == 0.0).any(axis=0)] = 0.0
    found[missing.any(axis=0)] = np.nan
    found[(~(np.isfinite(norms) & (norms >= 0.0)) & ~missing).any(axis=0)] = NOT_FINITE
    return found


def _logs(norms: FloatArray) -> FloatArray:
    return np.log10(norms, out=np.full_like(norms, np.nan), where=norms > 0.0)


def spans(marked: BoolArray, shares: int) -> list[tuple[int, int, int]]:
    """Where steps are marked: the first and last row of each stretch, and how many in it are.

    Stretches that lie closer together than a share of the steps is long are one.
    """
    rows = np.flatnonzero(marked)
    if not len(rows):
        return []
    near = max(len(marked) // shares, 1)
    stretches = np.split(rows, np.flatnonzero(np.diff(rows) > near) + 1)
    return [(int(rows[0]), int(rows[-1]), len(rows)) for rows in stretches]


def _shares(steps: int, shares: int) -> tuple[IntArray, IntArray]:
    """First row of each share and the row behind its last; one step each where there are no more."""
    edges = np.linspace(0, steps, min(steps, shares) + 1).astype(np.int64)
    return edges[:-1], edges[1:]
