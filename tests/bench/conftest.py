"""What is counted here hangs on no clock, and on nothing that a busy machine does otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from gradwatch.reporting import Reporting
from tests.machine import one_thread


@pytest.fixture(autouse=True)
def a_single_thread() -> Iterator[None]:
    """Several wait for each other."""
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def blocks_end_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step takes long, a block would end by the clock; each costs calls and memory of its own."""
    monkeypatch.setattr(Reporting, "SECONDS", math.inf)
