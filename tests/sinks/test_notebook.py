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

# A print beneath a bar of rich is an endless recursion in rich itself, also without gradwatch.
SILENT = ["rich inside", "Lightning"]
BARS = ["plain", "tqdm inside", "rich inside", "Lightning", "transformers"]


@pytest.mark.parametrize("on", [True, False], ids=["Console", "none"])
def test_a_notebook(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    first = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nSHOWN = {on}{MODEL}"
    cells = [nbformat.v4.new_code_cell(text) for text in (first, *(_program(bar) for bar in BARS))]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    for bar, cell in zip(BARS, book.cells[1:], strict=True):
        text = "".join(_text(output) for output in cell.outputs)
        for line in () if bar in SILENT else ("<print 50>", "<log 50>"):
            assert text.count(line) == 1, (bar, text)
        tables = [_html(output) for output in cell.outputs if "norm (L2)" in _html(output)]
        assert len(tables) == on, bar
        assert not on or "gradwatch: no alert fired." in tables[0]


def _program(bar: str) -> str:
    quiet = "print = lambda *_, **__: None\nlogging.disable()\n" if bar in SILENT else ""
    return f"{quiet}{PROGRAMS[bar]}" + ("\ndel print\nlogging.disable(0)" if quiet else "")


def _text(output: Any) -> str:
    return str(output.get("text", "")) + _html(output)


def _html(output: Any) -> str:
    return str(output.get("data", {}).get("text/html", ""))
