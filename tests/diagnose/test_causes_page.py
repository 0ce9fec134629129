"""The page of causes, the table of remedies and the binding list of kinds agree."""

from __future__ import annotations

import re
from pathlib import Path

from gradwatch.causes import cause
from gradwatch.diagnose import REMEDIES

PAGE = Path(__file__).parents[2] / "docs" / "causes.md"

# As the public contract lists them.
KINDS = [
    "frozen", "not-in-optimizer", "no-backward", "unused", "detached", "no-grad", "zeroed", "clipped-to-zero",
    "clip-overflow", "stale", "leaked", "underflow", "zero-loss", "zero-weight", "zero-input", "zero-factor",
    "constant", "dead-relu",
    "saturated-tanh", "saturated-sigmoid", "clamped", "masked", "shortcut", "nonfinite-loss", "nonfinite-op",
    "nonfinite-weights", "unknown",
]  # fmt: skip


def rows() -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells if len(row) == 4 and row[0].startswith("`")}


def test_every_kind_has_a_remedy() -> None:
    assert set(REMEDIES) == set(KINDS)


def test_the_page_has_every_kind_once_with_its_remedy() -> None:
    assert list(rows()) == KINDS
    assert {kind: row[-1] for kind, row in rows().items()} == REMEDIES
    assert all(all(row) for row in rows().values())


def test_what_one_loss_leaves_is_zeroed_and_what_another_leaves_may_be_frozen() -> None:
    own, several = (cause("leaked", "net", backward_passes=passes).remedy for passes in (1, 2))
    assert "zero_grad()" in own
    assert "other loss" not in own
    assert several == REMEDIES["leaked"]


def test_a_gradient_that_clipping_erased_is_told_by_what_the_norm_was() -> None:
    by_limit, by_norm = (
        cause("clipped-to-zero", "net", limit=0.0, norm_returned=norm).remedy for norm in (5.0, float("inf"))
    )
    assert by_limit == "Raise the limit of the clip call: 0 leaves nothing of the gradient."
    assert "not finite" in by_norm


def test_a_remedy_is_one_imperative_sentence() -> None:
    for kind, remedy in REMEDIES.items():
        assert re.fullmatch(r"[A-Z][^.!?]*(?:[a-z]\.[a-z][^.!?]*|\.data[^.!?]*|\.item[^.!?]*)*\.", remedy), (
            kind,
            remedy,
        )
