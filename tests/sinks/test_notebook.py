"""The console in a notebook: a table that changes in place, beside each kind of bar."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.library import library
from tests.sinks.screens import ROOT
from tests.sinks.test_terminal import MODEL, PROGRAMS

nbclient = library("nbclient")
nbformat = library("nbformat")
library("ipykernel")

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

BARS = ["plain", "tqdm inside", "rich inside", "Lightning", "transformers"]


@pytest.mark.parametrize("on", [True, False], ids=["Console", "none"])
def test_a_notebook(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    first = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nSHOWN = {on}{MODEL}"
    cells = [nbformat.v4.new_code_cell(text) for text in (first, *(PROGRAMS[bar] for bar in BARS))]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    for bar, cell in zip(BARS, book.cells[1:], strict=True):
        text = "".join(_text(output) for output in cell.outputs)
        # rich shows what is printed under its bar as HTML, in pieces.
        for line in ("<print 50>", "<log 50>") if bar != "rich inside" else ("print 50", "log 50"):
            assert text.count(line) == 1, (bar, text)
        tables = [_html(output) for output in cell.outputs if "norm (L2)" in _html(output)]
        assert len(tables) == on, bar
        assert not on or "gradwatch: no alert fired." in tables[0]


def _text(output: Any) -> str:
    return str(output.get("text", "")) + _html(output)


def _html(output: Any) -> str:
    return str(output.get("data", {}).get("text/html", ""))
