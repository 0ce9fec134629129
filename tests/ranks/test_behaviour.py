"""On many ranks nobody waits in vain, and no more is sent than has to be."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.ranks.launch import needs_recent
from tests.ranks.test_training import assert_same_norms
from tests.ranks.training import STEPS, truth

BLOCK = 16


@pytest.fixture
def world() -> int:
    return 2


@pytest.fixture
def results(world: int, request: pytest.FixtureRequest) -> list[Any]:
    """What each rank returned from the function that the test is named after."""
    on_ranks = request.getfixturevalue({2: "on_two_ranks", 4: "on_four_ranks"}[world])
    returned = on_ranks[request.function.__name__.removeprefix("test_")]
    assert not isinstance(returned[0], str), returned[0]
    return returned


on_two_and_on_four = pytest.mark.parametrize("world", [2, 4])


@on_two_and_on_four
def test_one_raises(results: list[Any]) -> None:
    for rank, result in enumerate(results):
        steps = 20 if rank == 0 else 40
        # A sum is complete or it is not there; the first block may have come before the exception, or not.
        assert len(result["records"]) in (0, BLOCK)
        assert {norm for *_, norm in result["records"]} <= {math.sqrt(30.0)}
        assert len(result["records"]) + result["dropped"] == steps
        assert result["errors"] == 0
        assert result["seconds"] < 10.0
        assert len(result["told"]) == 1


def test_one_leaves_early(results: list[Any]) -> None:
    # The first block is added up by all; when rank 0 has gone the others notice, and keep nothing for it.
    assert all(len(result["records"]) == BLOCK for result in results)
    assert results[0]["dropped"] == 20 - BLOCK
    assert results[1]["dropped"] == 1000 - BLOCK
    assert all(len(result["told"]) == 1 for result in results)


def test_one_exits_from_a_callback(results: list[Any]) -> None:
    assert [result["in the loop"] for result in results] == [list(range(1, BLOCK + 1))] * 2
    assert [result["exits"] for result in results] == [[5, 20], []]
    # Nobody waits for what rank 0 would still have had to say.
    assert all(result["seconds"] < 10.0 for result in results)


def test_steps_in_other_order(results: list[Any]) -> None:
    for result in results:
        assert [record[1:] for record in result["records"]] == [
            (n, 2 * math.sqrt(30.0)) for n in (4, 4, 5, 5, 6, 6)
        ]
        assert result["dropped"] == 6


def test_missing_and_nonfinite(results: list[Any]) -> None:
    for result in results:
        assert result == {"nonfinite": [("weight",), ()], "missing": [("bias",), ("weight",)]}


def test_only_rank_0_of_replicas(results: list[Any]) -> None:
    assert_same_norms(results[0]["norms"], truth(2))
    assert results[0]["told"] == []


def test_only_rank_0_of_parts(results: list[Any]) -> None:
    assert len(results[0]["norms"]) == STEPS
    assert [line for line in results[0]["told"] if "this rank" in line] == results[0]["told"]
    assert len(results[0]["told"]) == 2


@needs_recent
def test_only_rank_0_reads(results: list[Any]) -> None:
    assert results[0]["records"] == results[1]["records"]
    assert [step for step, _ in results[0]["records"]] == list(range(1, STEPS + 1))
    # What it read came in blocks.
    assert set(results[0]["newest"]) <= {0, BLOCK}


@needs_recent
def test_each_third(results: list[Any]) -> None:
    true = truth(2)
    for result in results:
        assert [step for step, _ in result] == [3, 6, 9, 12, 15, 18]
        for step, norms in result:
            for found, wanted in zip(norms, true[step - 1], strict=True):
                assert found["all"] == pytest.approx(wanted["all"], rel=1e-6)


@needs_recent
@on_two_and_on_four
def test_two_optimizers(results: list[Any]) -> None:
    steps = 26 + 13
    for result in results:
        # One when the ranks meet, to try the connections, and one for each block.
        message = 8 * BLOCK * (2 + 3 * result["parameters"])
        assert result["bytes"] == [message] * (1 + math.ceil(steps / BLOCK))
        assert len(result["steps"]) == steps


@needs_recent
def test_bare_and_tracked(results: list[Any]) -> None:
    assert all(all(result.values()) for result in results), results


@needs_recent
def test_without_hooks(results: list[Any]) -> None:
    for norms in results:
        assert_same_norms(norms, truth(2, own=True))


def test_scaled(results: list[Any]) -> None:
    assert results[0] == results[1] or "nan" in str(results)
    for result in results:
        assert [record[:3] for record in result["records"]] == [
            (1, False, 1024.0), (2, True, 1024.0), (3, False, 512.0),
        ]  # fmt: skip
        assert [math.isnan(record[4]) for record in result["records"]] == [False, True, False]
        assert math.isinf(result["records"][1][3])
        assert result["errors"] == 0


def test_guarded(results: list[Any]) -> None:
    assert all(result["skipped"] == [False, True, False] for result in results)
    assert "a parameter of which another rank has a part" in results[0]["stopped"]
    assert "weight" in results[1]["stopped"]


def test_guarded_alone(results: list[Any]) -> None:
    assert results == [True, True]


@needs_recent
def test_torchs_own_norm(results: list[Any]) -> None:
    for result in results:
        assert result["said"] == pytest.approx(result["returned"], rel=1e-6)
        assert result["limits"] == [(0.1, True, 1)] * 2


def test_flat_clip_method(results: list[Any]) -> None:
    for result in results:
        assert result["norms"] == pytest.approx(result["returned"], rel=1e-5)
        for calls, norm in zip(result["clips"], result["returned"], strict=True):
            assert calls == [("clip_grad_norm_", 0.1, 2.0, pytest.approx(norm))]
        assert result["restored"]
