"""Data-parallel ranks that consume different gradients are told of, and nobody waits."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def results(on_two_ranks: dict[str, list[Any]], request: pytest.FixtureRequest) -> list[Any]:
    returned = on_two_ranks[request.function.__name__.removeprefix("test_")]
    assert all(not isinstance(one, str) for one in returned), returned
    assert all(one["errors"] == 0 for one in returned)
    return returned


# One in 16 steps, told of 16 steps later.
COMPARED = [16, 32, 48, 64, 80]


def test_equal_replicas(results: list[Any]) -> None:
    for rank, result in enumerate(results):
        assert result["alerts"] == []
        assert [(one.step, one.rank) for one in result["compared"]] == [(step, 1 - rank) for step in COMPARED]


def test_accumulating_replicas(results: list[Any]) -> None:
    for result in results:
        assert result["alerts"] == []
        assert [one.step for one in result["compared"]] == COMPARED


def test_replicas_not_reduced(results: list[Any]) -> None:
    for result in results:
        assert [severity for severity, _ in result["alerts"]] == ["critical"]
        # The third comparison, of step 48.
        assert result["alerts"][0][1] == 64


def test_replicas_with_a_hook(results: list[Any]) -> None:
    assert all(result["alerts"] == [] and result["compared"] == [] for result in results)


def test_no_wrapper(results: list[Any]) -> None:
    assert all(result["alerts"] == [] and result["compared"] == [] for result in results)


def test_only_rank_0_tracks_replicas(results: list[Any]) -> None:
    assert results[0]["alerts"] == results[0]["compared"] == []
    assert results[0]["seconds"] < 10.0
