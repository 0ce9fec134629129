"""What sinks read of a block is what they read of its records."""

from itertools import chain

import numpy as np
import pytest

from gradwatch.blocks import Steps
from gradwatch.records import GroupNorms
from gradwatch.sinks.curves import curves
from gradwatch.sinks.exposition import OptimizerState
from tests.blocks import made_up_blocks
from tests.made_up import record


def test_steps_of_two_optimizers_come_in_their_own_order():
    one, other = (next(b for b in made_up_blocks(0, 40, name) if len(b) > 2) for name in ("actor", "critic"))
    steps = Steps([(one, 0), (other, 1), (one, 2)])
    first, second = curves(steps)
    assert (first.at, second.at) == ([0, 2], [1])
    assert first.steps == [one[0].step, one[2].step]
    np.testing.assert_array_equal(first.norms[:, 0], [one[0].norm_before, one[2].norm_before])


def test_steps_of_several_blocks_are_curves_of_their_own_where_modules_change():
    before, after = record(modules={"mlp": GroupNorms(1.0, 1.0)}), record(modules={"cnn": GroupNorms(1.0, 1.0)})
    other = record(optimizer="critic")
    shown = curves(Steps.of([before, other, after, before, before, other]))
    assert [(one.optimizer, one.modules, one.at) for one in shown] == [
        ("actor", ("mlp",), [0]),
        ("critic", ("mlp",), [1, 5]),
        ("actor", ("cnn",), [2]),
        ("actor", ("mlp",), [3, 4]),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_of_runs_in_which_everything_happens(seed):
    blocks = list(made_up_blocks(seed, 200))
    for some in ([block] for block in blocks), [blocks]:
        for together in some:
            (shown,) = curves(Steps.joined(map(Steps.of, together)))
            (one_by_one,) = curves(Steps.of(list(chain(*together))))
            np.testing.assert_array_equal(shown.norms, one_by_one.norms)
            assert all(one_by_one.odd)  # each is to be asked by itself
            for field, values in shown._asdict().items():
                assert field in ("norms", "odd") or list(values) == list(getattr(one_by_one, field)), field


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(6))
def test_counts_of_blocks_are_those_of_their_records(seed):
    blocks = list(made_up_blocks(seed, 200))
    modules = blocks[0].layout.lines.names
    together, one_by_one = OptimizerState(modules, 0.0), OptimizerState(modules, 0.0)
    for block in blocks:
        for state, steps in (together, Steps.of(block)), (one_by_one, Steps.of(list(block))):
            for shown in curves(steps):
                state.take(shown, steps)
        assert repr(together.newest) == repr(one_by_one.newest)
        for count in ("steps", "clipped", "skipped", "nonfinite", "module_nonfinite", "last_step_time"):
            assert getattr(together, count) == getattr(one_by_one, count), count
        assert together.buckets.tolist() == one_by_one.buckets.tolist()
        assert together.finite_sum == pytest.approx(one_by_one.finite_sum)
        at = block.rows[-1].time
        np.testing.assert_equal(together.window.at(at), one_by_one.window.at(at))
