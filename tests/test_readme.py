import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import gradwatch
from gradwatch.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_example_of_the_readme_runs(capsys):
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    assert "GroupNorms" in capsys.readouterr().out


def test_a_run_is_read_as_the_readme_says(capsys: Any) -> None:
    pytest.importorskip("pandas")
    names: dict[str, Any] = {}
    (reading,) = [block for block in BLOCKS if "watch.to_frame()" in block]
    exec(compile(BLOCKS[0] + reading, "README.md", "exec"), names)
    assert len(names["table"]) == 20


def test_several_optimizers_go_to_the_sinks_of_the_readme(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"gradwatch": gradwatch}
    for name in ("actor", "critic"):
        names[name], names[f"{name}_cnn"] = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        parameters = [*names[name].parameters(), *names[f"{name}_cnn"].parameters()]
        names[f"{name}_optimizer"] = torch.optim.SGD(parameters)
    (block,) = [block for block in BLOCKS if "actor_cnn" in block]
    assert "port=19109" in block
    exec(compile(block.replace("port=19109", "port=0"), "README.md", "exec"), names)
    assert list((tmp_path / "runs" / "1").iterdir())


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


def test_each_command_of_the_readme_works(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters())
    sinks = [gradwatch.sinks.Jsonl(tmp_path / "run.jsonl")]
    # An error leaves a file of the flight recorder.
    with pytest.raises(ZeroDivisionError), gradwatch.track(optimizer, model, sinks=sinks):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        raise ZeroDivisionError
    commands = re.findall(r"^gradwatch (\w+)(?: ([\w.-]+\.jsonl))?.*  # ", TEXT, re.MULTILINE)
    assert [name for name, _ in commands] == ["report", "report", "rules", "dashboard"]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for name, file in commands:
        assert main([name, *([file] if file else [])]) == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target and "<" not in target:
            assert (page.parent / target).exists(), target
