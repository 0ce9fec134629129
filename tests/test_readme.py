import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import gradwatch

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_sink_is_in_the_table() -> None:
    named = re.findall(r"^\| `([A-Z]\w+)\(.*?\)` \|", TEXT, re.MULTILINE)
    assert sorted(named) == sorted(name for name in gradwatch.sinks.__all__ if name != "Sink")


def test_the_readme_names_only_what_is_there() -> None:
    for path in re.findall(r"`gradwatch\.((?:\w+\.)*\w+)", TEXT):
        found: Any = gradwatch
        for part in path.split("."):
            found = getattr(found, part)
    for attribute in re.findall(r"\bwatch\.(\w+)", TEXT):
        assert hasattr(gradwatch.Watch, attribute)


@pytest.mark.interop
@pytest.mark.parametrize("library", ["lightning", "transformers", "sb3"])
def test_each_callback_is_where_the_readme_says(library: str) -> None:
    needs = {"lightning": "pytorch_lightning", "transformers": "transformers", "sb3": "stable_baselines3"}
    pytest.importorskip(needs[library])
    assert f"`{library}`" in TEXT or f"gradwatch.integrations.{library} import Callback" in TEXT
    assert importlib.import_module(f"gradwatch.integrations.{library}").Callback
