"""Ranks agree, and add up, whoever is late, unwilling or gone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ranks.launch import RECENT, RanksFailedError, run_ranks


@pytest.fixture(params=[2, 4])
def world(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def returned(world: int, request: pytest.FixtureRequest) -> dict[str, list[Any]]:
    return request.getfixturevalue({2: "on_two_ranks", 4: "on_four_ranks"}[world])


def test_all_are_told_the_same(returned: dict[str, list[Any]]) -> None:
    assert all(answers == [True, False, False] for answers in returned["all_agree"])


def test_sums_of_blocks_of_any_length(returned: dict[str, list[Any]], world: int) -> None:
    shares = sum(10.0**rank for rank in range(world))
    for result in returned["sums"]:
        for size, total in zip((1, 4, 9), result["totals"], strict=True):
            assert total.tolist() == (np.arange(size) * world + shares).tolist()
        assert result["left"]
        assert not result["lost"]
        assert result["torch knows of nothing"]


def test_a_sum_that_others_have_not_begun_is_not_waited_for(returned: dict[str, list[Any]]) -> None:
    assert returned["nothing_waits"][0] is False


def test_only_ranks_that_share_something_meet(returned: dict[str, list[Any]], world: int) -> None:
    halves = [sum(range(1, world // 2 + 1)), sum(range(world // 2 + 1, world + 1))]
    assert returned["some_of_the_ranks"] == [h for h in halves for _ in range(world // 2)]


def test_a_rank_that_meets_nobody_goes_on_alone_and_says_so(returned: dict[str, list[Any]]) -> None:
    first = returned["one_alone"][0]
    assert not first["alone"]
    assert "those of this rank's shards alone" in first["told"][0]
    assert len(first["told"]) == 1


def test_after_a_meeting_in_vain_ranks_find_each_other(returned: dict[str, list[Any]]) -> None:
    assert all(result["together"] for result in returned["one_alone"])


def test_ranks_that_track_otherwise_do_not_meet(returned: dict[str, list[Any]]) -> None:
    assert not any(returned["other_terms"])


def test_a_rank_that_leaves_by_an_exception_is_known_to_be_lost(returned: dict[str, list[Any]]) -> None:
    assert all(result == {"before": False, "after": True} for result in returned["one_leaves"])


def test_a_rank_that_gives_up_waits_for_nobody(returned: dict[str, list[Any]]) -> None:
    assert returned["one_never_adds"][0]["seconds"] < 5.0
    assert not any(result["left"] for result in returned["one_never_adds"])
    assert returned["one_never_adds"][0]["total"] is None


def test_a_rank_has_two_connections_however_many_there_are(returned: dict[str, list[Any]], world: int) -> None:
    # Torch 2.6 connects each rank to every other one.
    neighbours = min(world - 1, 2) if RECENT else world - 1
    # One more where it listens.
    assert all(opened <= neighbours + 1 for opened in returned["connections"])


def test_the_harness_ends_what_does_not_end_by_itself() -> None:
    with pytest.raises(RanksFailedError, match="--- rank 1, exit killed"):
        run_ranks(2, [], seconds=0.1)
