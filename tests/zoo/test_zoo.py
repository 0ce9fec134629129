"""Every planted fault is found and its cause told; every healthy loop stays silent."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.zoo.families import FAULTS, HEALTHY
from tests.zoo.judged import Outcome, judged_fault, judged_healthy
from tests.zoo.open import OPEN


class MisjudgedError(Exception):
    """Something that gradwatch should have said, or should not have."""


def each(names: Iterable[str]) -> list[object]:
    """What is open must fail: whoever mends it is told to take it off the list."""
    return [
        pytest.param(name, marks=pytest.mark.xfail(raises=MisjudgedError, strict=True, reason=OPEN[name]))
        if name in OPEN
        else name
        for name in names
    ]


def hold(outcome: Outcome) -> None:
    """What is wrong with the loop itself is never open."""
    if outcome.broken:
        pytest.fail("\n".join(["", *outcome.complaints]), pytrace=False)
    if outcome.complaints:
        raise MisjudgedError("\n".join(["", *outcome.complaints]))


@pytest.mark.parametrize("name", each(FAULTS))
def test_fault(name: str) -> None:
    hold(judged_fault(FAULTS[name]))


@pytest.mark.parametrize("name", each(HEALTHY))
def test_healthy(name: str) -> None:
    hold(judged_healthy(HEALTHY[name]))


def test_what_is_open_is_planted() -> None:
    assert set(OPEN) <= {*FAULTS, *HEALTHY}
