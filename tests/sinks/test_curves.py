"""What sinks read of a block is what they read of its records."""

from collections import defaultdict
from itertools import chain

import numpy as np
import pytest

from gradwatch.blocks import Steps
from gradwatch.sinks.curves import curves
from gradwatch.sinks.exposition import OptimizerState
from tests.blocks import made_up_blocks


def test_steps_of_two_optimizers_come_in_their_own_order():
    one, other = (next(b for b in made_up_blocks(0, 40, name) if len(b) > 2) for name in ("actor", "critic"))
    steps = Steps([(one, 0), (other, 1), (one, 2)])
    first, second = steps.alike
    assert (first.places, first.at) == ([0, 2], [0, 2])
    assert (second.places, second.at) == ([1], [1])
    assert curves(first).steps == [one[0].step, one[2].step]
    np.testing.assert_array_equal(curves(first).norms[:, 0], [one[0].norm_before, one[2].norm_before])


@pytest.mark.parametrize("seed", range(6))
def test_of_runs_in_which_everything_happens(seed):
    for block in made_up_blocks(seed, 200):
        (alike,) = Steps.of(block).alike
        shown, by_field = curves(alike)._asdict(), defaultdict(list)
        for one in Steps.of(list(block)).alike:
            for field, value in curves(one)._asdict().items():
                by_field[field].append(value)
        assert {*by_field.pop("optimizer")} == {shown.pop("optimizer")}
        assert {*by_field.pop("modules")} == {shown.pop("modules")}
        np.testing.assert_array_equal(shown.pop("norms"), np.concatenate(by_field.pop("norms")))
        assert shown == {field: [*chain(*values)] for field, values in by_field.items()}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(6))
def test_counts_of_blocks_are_those_of_their_records(seed):
    blocks = list(made_up_blocks(seed, 200))
    modules = blocks[0].layout.lines.names
    together, one_by_one = OptimizerState(modules, 0.0), OptimizerState(modules, 0.0)
    for block in blocks:
        for state, steps in (together, Steps.of(block)), (one_by_one, Steps.of(list(block))):
            for alike in steps.alike:
                state.take(curves(alike), alike)
        assert repr(together.newest) == repr(one_by_one.newest)
        for count in ("steps", "clipped", "skipped", "nonfinite", "module_nonfinite", "last_step_time"):
            assert getattr(together, count) == getattr(one_by_one, count), count
        assert together.buckets.tolist() == one_by_one.buckets.tolist()
        assert together.finite_sum == pytest.approx(one_by_one.finite_sum)
        at = block.rows[-1].time
        np.testing.assert_equal(together.window.at(at), one_by_one.window.at(at))
