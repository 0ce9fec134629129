"""One torch thread: several wait for each other where the machine is busy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machine import one_thread


@pytest.fixture(autouse=True)
def a_single_thread() -> Iterator[None]:
    with one_thread():
        yield
