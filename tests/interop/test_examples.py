"""The examples for users of each library run as they are."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import gradwatch
from tests.interop.library import library

pytestmark = pytest.mark.interop


def watched(example: str, steps: int) -> gradwatch.Watch:
    watch: gradwatch.Watch = import_module(f"examples.{example}").train(steps)
    assert watch.health().internal_errors == 0
    assert watch.alerts == []
    return watch


def test_stable_baselines3() -> None:
    library("stable_baselines3")
    watch = watched("sb3_td3", 140)
    assert {name: record.step for name, record in watch.last.items()} == {"actor": 20, "critic": 40}
    assert set(watch["critic"].modules) == {"critic"}


def test_transformers() -> None:
    library("transformers")
    history = watched("transformers_trainer", 3).history
    assert [record.step for record in history] == [1, 2, 3]
    assert {(record.backward_passes, record.max_norm) for record in history} == {(2, 1.0)}
    assert set(history[0].modules) == {"embedding", "block0", "block1"}


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers:UserWarning")
def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library("pytorch_lightning")
    monkeypatch.chdir(tmp_path)  # Lightning keeps its checkpoints beside the program
    history = watched("lightning_loop", 4).history
    assert [(record.step, record.max_norm) for record in history] == [(n, 1.0) for n in (1, 2, 3, 4)]
    assert set(history[0].modules) == {"layer"}
