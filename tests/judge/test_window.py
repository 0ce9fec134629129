"""The newest values of a run: what is said of their order without sorting them is what sorting says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gradwatch.judge.window import Window

_value = st.integers(0, 9).map(float)
# One value, or several at once; and then a place and a value that are asked for.
_takes = st.lists(st.tuples(_value | st.lists(_value, min_size=1, max_size=5), st.integers(-3, 12), _value))


@given(st.lists(_value, max_size=8), _takes, st.integers(1, 8))
def test_what_is_told_of_a_place_is_what_sorting_tells(
    begins: list[float], takes: list[tuple[float | list[float], int, float]], most: int
) -> None:
    window, values = Window(begins), begins
    for taken, place, value in takes:
        if isinstance(taken, list):
            window.add_all(taken, most)
            values = [*values, *taken][-most:]
        else:
            window.add(taken, most)
            values = [*values, taken][-most:]
        there = sorted(values)
        assert window.is_at_least(place, value) == (place >= len(there) or (place >= 0 and there[place] >= value))
        # Not each time, so that more than one turn goes by from one sorting to the next.
        if value > 6.0:
            assert window.ordered == there
    assert window.values == values


def test_nothing_is_sorted_where_how_it_was_tells_enough() -> None:
    window = Window([5.0] * 100)
    kept = window.ordered
    window.add_all([1.0] * 16, 100)
    assert window.is_at_least(49, 5.0)
    assert window.ordered is not kept
