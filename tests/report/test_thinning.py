"""What may be left out of a drawing, and what may not."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.report.thinning import NOT_FINITE, cells, extremes, spans

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=200), st.integers(1, 20))
def test_the_extremes_of_each_share_are_kept(rows: list[tuple[float, float]], shares: int) -> None:
    curves = np.array(rows, dtype=np.float64)
    kept = extremes(curves, shares).tolist()
    assert kept == sorted(set(kept))
    assert {0, len(rows) - 1} <= set(kept)
    assert len(kept) <= shares * (2 + 2 * curves.shape[1])
    edges = np.linspace(0, len(rows), min(len(rows), shares) + 1).astype(int)
    for a, b in pairwise(edges.tolist()):
        for curve in curves.T:
            there = [curve[row] for row in kept if a <= row < b and math.isfinite(curve[row])]
            finite = [value for value in curve[a:b] if math.isfinite(value)]
            assert (min(there), max(there)) == (min(finite), max(finite)) if finite else not there


def test_few_steps_are_all_drawn() -> None:
    assert extremes(np.ones((7, 2)), 7).tolist() == list(range(7))


def test_a_spike_and_a_dip_of_one_step_are_kept_among_ten_thousand() -> None:
    curve = np.ones((10_000, 1))
    curve[4321], curve[8765] = 1e6, 1e-6
    kept = extremes(curve, 400)
    assert {4321, 8765} <= set(kept.tolist())
    assert len(kept) <= 1600


def test_a_cell_shows_the_worst_of_its_steps() -> None:
    usual = np.ones((100, 6))
    missing = np.zeros((100, 6), dtype=bool)
    usual[50, 0] = 100.0
    usual[50, 1] = 0.001
    usual[50, 2], usual[51, 2] = 0.0, 1e9
    usual[50, 3], missing[50, 3], usual[51, 3] = math.nan, True, 0.0
    usual[50, 4], usual[51, 4] = math.inf, 0.0
    begins, worst = cells(usual, missing, 10)
    assert begins.tolist() == list(range(0, 100, 10))
    assert worst[:, 5].tolist()[:3] == [100.0, 0.001, 0.0]
    assert math.isnan(worst[3, 5])
    assert worst[:, 5].tolist()[4:] == [NOT_FINITE, 1.0]
    assert (worst[:, :5] == 1.0).all()


def test_no_line_has_no_cells() -> None:
    assert cells(np.ones((3, 0)), np.zeros((3, 0), dtype=bool), 10).worst.shape == (0, 3)


def test_marks_are_counted_in_stretches() -> None:
    marked = np.zeros(1000, dtype=bool)
    marked[[0, 5, 6, 500, 999]] = True
    assert spans(marked, 100) == [(0, 6, 3), (500, 500, 1), (999, 999, 1)]
    assert spans(marked, 1000) == [(0, 0, 1), (5, 6, 2), (500, 500, 1), (999, 999, 1)]
    assert spans(~(marked | True), 10) == []
