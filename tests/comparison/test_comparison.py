"""The page on others says what is measured today: the rows that take no seconds, and what gradwatch alone claims."""

from __future__ import annotations

import pytest

from tests.comparison.table import TRUTH, head, row, there
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")


def test_the_columns_are_the_cases() -> None:
    assert head() in PAGE


@pytest.mark.parametrize("tool", [TRUTH, "gradwatch", "`clip_grad_norm_`'s own return", "Lightning's `grad_norm`"])
@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_row_of_the_page(tool: str) -> None:
    if tool != TRUTH and not there(tool):
        pytest.skip(f"{tool} is missing")
    (on_page,) = [line for line in PAGE.splitlines() if line.startswith(f"| {tool} | 5")]
    assert portable(row(tool)) == portable(on_page)


def portable(line: str) -> list[str]:
    """Without the column of torch's float32 sums, which depend on the processor."""
    cells = line.strip("| ").split(" | ")
    return cells[:5] + cells[6:]


def test_gradwatch_says_what_is_true() -> None:
    told = zip(row(TRUTH).split(" | "), row("gradwatch").split(" | "), strict=True)
    # A missing gradient is said to be missing, which is more than nothing.
    assert [said for true, said in told if true != said] == ["| gradwatch", "`last`: nan"]
