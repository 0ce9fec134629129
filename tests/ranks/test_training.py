"""Norms on many ranks are those of one process that has all the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.ranks.launch import needs_recent
from tests.ranks.training import STEPS, Norms, truth
from tests.ranks.wrapped import ON_FOUR, ON_RECENT_TORCH, ON_TWO


def each(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[needs_recent] if name in ON_RECENT_TORCH else []) for name in names]


@pytest.mark.parametrize("name", each(ON_TWO))
def test_norms_on_two_ranks(on_two_ranks: dict[str, list[Any]], name: str) -> None:
    for norms in on_two_ranks[name]:
        assert_same_norms(norms, truth(**{"world": 2, **ON_TWO[name]}))


@pytest.mark.parametrize("name", each(ON_FOUR))
def test_norms_on_four_ranks(on_four_ranks: dict[str, list[Any]], name: str) -> None:
    for norms in on_four_ranks[name]:
        assert_same_norms(norms, truth(**{"world": 4, **ON_FOUR[name]}))


def assert_same_norms(norms: Any, true: list[tuple[Norms, Norms]]) -> None:
    assert not isinstance(norms, str), norms
    assert len(norms) == len(true) == STEPS
    for step, sides in enumerate(zip(norms, true, strict=True)):
        for side, found, wanted in zip(("before", "after"), *sides, strict=True):
            assert found == pytest.approx(wanted, rel=1e-6), f"step {step}, {side}"
