"""The site is built from the pages and the docstrings, and needs no network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradwatch
from tests.docs.pages import ROOT

REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))


@pytest.mark.skipif(
    not importlib.util.find_spec("mkdocstrings_handlers"), reason="run make docs: mkdocs is missing"
)
def test_it_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        text = page.read_text(encoding="utf-8")
        # A list behind a line that is not empty would be a part of the paragraph.
        assert not re.search(r"<p>(?:(?!</p>).)*\n- ", text, re.DOTALL), page
        assert not re.search(r'<(?:script|img|iframe)[^>]* src="?https?:', text), page
        assert not re.search(r'<link rel="?(?:stylesheet|preconnect)[^>]* href="?https?:', text), page
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:", style.read_text(encoding="utf-8")), style
    # The decisions are listed by docs/hooks.py.
    assert "decisions/0001-float64-sums.html" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"gradwatch.{name}"
            for name in gradwatch.__all__
            if name not in ("__version__", "errors", "rules", "sinks")
        ),
        *(f"gradwatch.sinks.{name}" for name in gradwatch.sinks.__all__),
        *(f"gradwatch.rules.{name}" for name in gradwatch.rules.__all__),
    ],
)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    # As it is exported; what two modules export is told of once.
    asked = re.findall(r"^::: ([\w.]+)", REFERENCE, re.MULTILINE)
    same = {name, f"gradwatch.rules.{name.rpartition('.')[2]}"}
    assert same & set(asked)
