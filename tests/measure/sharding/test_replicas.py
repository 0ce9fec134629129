"""What one rank leaves in the store, and what it takes from its neighbour: in one process, with a store in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from gradwatch.blocks import Facts, StepRow
from gradwatch.measure.lines import Lines
from gradwatch.measure.parameters import OptimizerParameters
from gradwatch.measure.pending import LandedStep
from gradwatch.measure.sharding.replicas import Replicas
from gradwatch.measure.sharding.shards import Shards
from gradwatch.records import RankNorms

distributed = pytest.importorskip("torch.distributed")


class Two:
    """Two ranks, each with the steps of one parameter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = distributed.HashStore()
        weight = nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        self._own = OptimizerParameters("actor", optimizer, Lines({}, None), Shards([weight])).row
        self.ranks = []
        for rank in range(2):
            monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
            self.ranks.append(Replicas(self.store, {"actor": (0, 1)}, {"actor": "form"}))

    def step(self, rank: int, number: int, norm: float) -> RankNorms | None:
        row = StepRow(number, float(number), Facts.usual(1))
        landed = LandedStep(self._own, row, np.array([norm]).tobytes(), np.array([norm]).tobytes())
        self.ranks[rank].compare([landed])
        return landed.row.compared


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    both = Two(monkeypatch)
    yield both
    for rank in both.ranks:
        rank.close()


def test_a_step_is_compared_once_both_have_told_of_it(two: Two) -> None:
    assert two.step(0, 16, 3.0) is None
    assert two.step(1, 16, 4.0) is None
    found = two.step(0, 32, 5.0)
    assert found is not None
    assert (found.step, found.rank, found.here, found.there) == (16, 1, 3.0, 4.0)
    assert two.step(0, 48, 5.0) is None


def test_steps_between_are_not_told_of(two: Two) -> None:
    before = two.store.num_keys()
    assert [two.step(0, number, 3.0) for number in (1, 15, 17)] == [None] * 3
    assert two.store.num_keys() == before


def test_another_step_in_the_same_place_of_the_ring_is_none(two: Two) -> None:
    two.step(0, 16, 3.0)
    two.step(1, 16 + 16 * Replicas.RING, 4.0)
    assert two.step(0, 32, 3.0) is None


def test_the_store_does_not_grow_and_nothing_is_left(two: Two) -> None:
    at_first = two.store.num_keys()
    sizes = []
    for number in range(16, 16 * 40, 16):
        for rank in range(2):
            two.step(rank, number, 3.0)
        sizes.append(two.store.num_keys())
    assert max(sizes) == sizes[10] <= at_first + 2 * Replicas.RING
    for rank in two.ranks:
        rank.close()
    assert two.store.num_keys() <= at_first


def test_a_store_that_has_failed_is_asked_no_more(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Gone:
        def set(self, *_: object) -> None:
            asked.append(1)
            raise RuntimeError("connection closed")

        compare_set = set

    two.ranks[0]._store = Gone()
    assert [two.step(0, number, 3.0) for number in (16, 32, 48)] == [None] * 3
    assert len(asked) == 1
