"""A browser for the tests of the page; where there is none, they are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import PROGRAM, Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("no Chromium is here: apt-get install chromium brings it")
    with Browser() as opened:
        yield opened
