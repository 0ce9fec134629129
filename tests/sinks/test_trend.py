import math

import numpy as np

from gradwatch.sinks.trend import Trend


def drawn(norms, cut, ascii_only=False):
    trend = Trend(1)
    steps = list(range(1, len(norms) + 1))
    for begin in range(0, len(norms), cut):
        part = slice(begin, begin + cut)
        trend.add(steps[part], np.array(norms[part], dtype=float)[:, None])
    return trend.drawn(0, ascii_only)


def test_it_spans_the_whole_run_however_it_came_in_blocks():
    norms = [10.0 ** (n / 100) for n in range(400)]
    (picture,) = {drawn(norms, cut) for cut in (1, 7, 16, 400)}
    assert len(picture) == math.ceil(400 / 64)
    assert list(picture) == sorted(picture)
    assert (picture[0], picture[-1]) == ("▁", "█")


def test_noise_looks_flat_and_a_spike_does_not():
    assert set(drawn([1.0, 1.2, 0.9, 1.1], 2)) <= set("▄▅")
    assert "█" in drawn([1.0, 1.0, 1e6, 1.0], 2)


def test_what_is_zero_or_not_finite_leaves_a_gap():
    assert drawn([1.0, 0.0, math.nan, math.inf, 1.0], 5)[1:4] == "···"
    assert drawn([0.0, 0.0], 1) == "··"


def test_in_ascii():
    assert drawn([1.0, 10.0, 1e3, 0.0], 4, ascii_only=True).isascii()


def test_a_run_that_begins_late_or_is_counted_anew_is_drawn_all_the_same():
    trend = Trend(1)
    trend.add([5001, 5002], np.ones((2, 1)))
    trend.add([1], np.ones((1, 1)))
    assert len(trend.drawn(0, False)) == 2
