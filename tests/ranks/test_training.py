"""Norms on many ranks are those of one process that has all the data."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ranks.launch import run_ranks
from tests.ranks.training import STEPS, Norms, truth

MODULE = "tests.ranks.wrapped"

# What the one process does, by the name of what the ranks do.
TWO_RANKS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp_own_clipping": {"own": True},
    "ddp_no_sync": {"own": True, "passes": 3},
    "ddp_bucket_view": {"own": True},
    "ddp_static_graph": {"own": True},
    "ddp_find_unused": {"own": True},
    "zero_optimizer": {},
    "fsdp2": {},
    "fsdp2_own_clipping": {"own": True},
    "fsdp2_accumulating": {"own": True, "passes": 3},
    "fsdp1": {},
    "fsdp1_orig_params": {},
    "fsdp1_own_clipping": {"own": True},
    "fsdp1_orig_params_own_clipping": {"own": True, "passes": 3},
    "fsdp1_no_shard": {},
    "tensor_parallel": {"own": True, "per_rank": False},
    "sequence_parallel": {"per_rank": False},
    "sequence_parallel_own_clipping": {"own": True, "per_rank": False},
}
FOUR_RANKS: dict[str, dict[str, Any]] = {
    "ddp": {"world": 4},
    "fsdp2": {"world": 4},
    "fsdp1_orig_params": {"world": 4},
    "replicated_and_sharded": {"world": 4},
    "hybrid_fsdp1": {"world": 4, "own": True},
    "tensor_and_data_parallel": {"world": 2, "own": True},
    "sequence_and_data_parallel": {"world": 2},
    "pipeline_stages": {"world": 2},
}


@pytest.fixture(scope="module")
def on_two_ranks() -> dict[str, list[Any]]:
    functions = run_ranks(2, [f"{MODULE}:{name}" for name in TWO_RANKS])
    return {function.partition(":")[2]: results for function, results in functions.items()}


@pytest.mark.parametrize("name", TWO_RANKS)
def test_norms_on_two_ranks(on_two_ranks: dict[str, list[Any]], name: str) -> None:
    for norms in on_two_ranks[name]:
        assert_same_norms(norms, truth(world=2, **TWO_RANKS[name]))


@pytest.fixture(scope="module")
def on_four_ranks() -> dict[str, list[Any]]:
    functions = run_ranks(4, [f"{MODULE}:{name}" for name in FOUR_RANKS])
    return {function.partition(":")[2]: results for function, results in functions.items()}


@pytest.mark.parametrize("name", FOUR_RANKS)
def test_norms_on_four_ranks(on_four_ranks: dict[str, list[Any]], name: str) -> None:
    for norms in on_four_ranks[name]:
        assert_same_norms(norms, truth(**FOUR_RANKS[name]))


def assert_same_norms(norms: Any, true: list[tuple[Norms, Norms]]) -> None:
    assert not isinstance(norms, str), norms
    assert len(norms) == len(true) == STEPS
    for step, sides in enumerate(zip(norms, true, strict=True)):
        for side, found, wanted in zip(("before", "after"), *sides, strict=True):
            assert found == pytest.approx(wanted, rel=1e-6), f"step {step}, {side}"
