import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.blocks import Steps
from gradwatch.records import GroupNorms, RunInfo
from gradwatch.sinks.curves import curves
from gradwatch.sinks.exposition import BOUNDS, OptimizerState, WindowMax, new_states
from tests.made_up import record


def take(state, *records):
    steps = Steps.of(records)
    for shown in curves(steps):
        state.take(shown, steps)


def test_the_window_forgets_after_a_minute():
    window = WindowMax()
    assert math.isnan(window.at(0.0))
    window.add(np.array([9.0]), np.array([5.0]))
    window.add(np.array([3.0]), np.array([20.0]))
    assert window.at(59.0) == 9.0
    assert window.at(61.0) == 3.0
    assert math.isnan(window.at(200.0))


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 5)), min_size=1), st.integers(0, 9))
def test_the_window_holds_every_value_of_50_seconds_and_none_older_than_60(entries, cut):
    window, time, seen = WindowMax(), 1_700_000_000.0, []
    for value, pause in entries:
        time += pause
        seen.append((value, time))
    for some in (seen[:cut], seen[cut:]):
        window.add(*np.array(some).reshape(-1, 2).T)
    surely = max(value for value, when in seen if when > time - 50)
    at_most = max(value for value, when in seen if when >= time - 60)
    assert surely <= window.at(time) <= at_most


def test_the_bounds_are_half_decades_from_1e_minus_8_to_1e6():
    assert (BOUNDS[0], BOUNDS[-1], len(BOUNDS)) == (1e-8, 1e6, 29)
    for lower, upper in itertools.pairwise(BOUNDS):
        assert upper / lower == pytest.approx(math.sqrt(10), rel=2e-3)


@pytest.mark.parametrize(("norm", "place"), [(0.0, 0), (1e-8, 0), (1.1e-8, 1), (1e6, 28), (1.1e6, 29)])
def test_a_bound_belongs_to_its_bucket(norm, place):
    state = OptimizerState((), 0.0)
    take(state, record(before=norm, clip_ratio=1.0))
    assert [count for count in state.buckets if count] == [1]
    assert state.buckets[place] == 1


def test_the_sum_stays_finite_whatever_comes():
    state = OptimizerState((), 0.0)
    for norm in (math.nan, math.inf, sys.float_info.max, sys.float_info.max):
        take(state, record(before=norm, after=1.0, clip_ratio=1.0))
    assert state.finite_sum == sys.float_info.max
    assert (sum(state.buckets), state.steps) == (2, 4)


def test_only_the_module_that_is_not_finite_is_counted_also_where_the_step_was_skipped():
    modules = {"good": GroupNorms(1.0, math.nan), "bad": GroupNorms(math.nan, math.nan)}
    gone = {"gone": GroupNorms(math.nan, math.nan)}
    state = OptimizerState(("good", "bad", "gone"), 0.0)
    take(
        state,
        record(
            1,
            math.nan,
            math.nan,
            modules={**modules, **gone},
            nonfinite=("bad.weight",),
            missing_modules=("gone",),
            skipped=True,
        ),
    )
    assert dict(state.module_nonfinite) == {"bad": 1}
    assert (state.nonfinite, state.skipped) == (1, 1)


def test_all_optimizers_share_the_room_for_modules():
    names = tuple(f"m{i}" for i in range(150))
    run = RunInfo("r", 0, 0.0, "", "", "", ("a", "b", "c"), {"a": names, "b": names})
    states, left_out = new_states(run)
    assert [len(state.modules) for state in states.values()] == [150, 50, 0]
    assert left_out == 100
