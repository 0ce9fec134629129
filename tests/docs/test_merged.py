"""No page holds both sides of a merge."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, name_of

MARK = re.compile(r"^(<{7}|={7}$|>{7})", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_holds_both_sides_of_a_merge(page: Path) -> None:
    assert not MARK.search(page.read_text(encoding="utf-8"))
