"""The bench itself, on a loop that is over at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.bench.__main__ import table
from tests.bench.isolated import Isolated
from tests.bench.loops import Loop
from tests.bench.paired import Cost, Ratio, cost_of
from tests.loops.models import mlp

STEPS = 5


def short() -> Loop:
    isolated = Isolated(mlp())
    return Loop(lambda: isolated.run(STEPS), {"sgd": isolated.optimizer}, {"net": isolated.model})


def test_a_loop_is_measured() -> None:
    cost = cost_of(short, rounds=3)
    assert (cost.steps, cost.rounds, cost.alerts) == (STEPS, 3, 0)
    for ratio in (cost.cpu, cost.wall):
        assert 0 < ratio.low <= ratio.median <= ratio.high


def test_a_training_that_goes_another_way_has_no_cost() -> None:
    drawn = iter(range(100))

    def wandering() -> Loop:
        loop = short()
        with torch.no_grad():
            loop.parameters()[0].fill_(next(drawn))
        return loop

    with pytest.raises(AssertionError, match="tracking changed the training"):
        cost_of(wandering, rounds=1)


def test_the_table_has_the_targets_and_the_median_of_the_loops() -> None:
    cheap = Cost(Ratio(1.02, 1.01, 1.03), Ratio(1.02, 1.01, 1.03), 10, 1000.0, 20.0, 0, 15)
    dear = replace(cheap, cpu=Ratio(1.2, 1.1, 1.3))
    lines = table({"a": cheap, "b": cheap, "c": dear}).splitlines()
    assert lines[2].startswith("| a | 1.020 (1.010 .. 1.030) | 1.05: met |")
    assert lines[4].startswith("| c | 1.200 (1.100 .. 1.300) | 1.05: missed |")
    assert lines[5].startswith("| median of the loops | 1.020 | 1.03: met |")
