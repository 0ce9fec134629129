"""All functions for one number of processes run in the same few processes: most of their time is importing torch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ranks import behaviour, meeting, replicas, wrapped
from tests.ranks.launch import RECENT, run_ranks

Returned = dict[str, list[Any]]


def returned_on(world: int) -> Returned:
    """What each rank returned, by function."""
    names = [
        f"{module.__name__}:{name}"
        for module in (meeting, wrapped, behaviour, replicas)
        for name in (module.ON_TWO if world == 2 else getattr(module, "ON_FOUR", ()))
        if RECENT or name not in getattr(module, "ON_RECENT_TORCH", ())
    ]
    returned = run_ranks(world, names, seconds=180.0)
    return {name.partition(":")[2]: results for name, results in returned.items()}


@pytest.fixture(scope="session")
def on_two_ranks() -> Returned:
    return returned_on(2)


@pytest.fixture(scope="session")
def on_four_ranks() -> Returned:
    return returned_on(4)
