"""What importing gradwatch gives, and what it does not load or touch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gradwatch


def imported(statement: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True
    ).stderr
    return {line.rsplit("|", 1)[1].strip() for line in told.splitlines() if line.startswith("import time:")}


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return imported("import gradwatch.watching")


def test_the_import_is_seen_at_all(loaded: set[str]) -> None:
    assert {"gradwatch", "gradwatch.watching", "torch", "gradwatch.sinks.tensorboard"} <= loaded


def test_what_is_not_asked_for_is_not_loaded() -> None:
    loaded = imported("import gradwatch; dir(gradwatch)")
    assert "gradwatch" in loaded
    assert not {"torch", "numpy"} & loaded


def test_a_name_that_is_not_there_is_none_of_gradwatchs() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tracks'"):
        _ = gradwatch.tracks


@pytest.mark.parametrize("package", ["tensorboard", "rich", "prometheus_client"])
def test_packages_that_only_sinks_need_are_not_loaded(loaded: set[str], package: str) -> None:
    assert not [name for name in loaded if name.split(".")[0] == package]


def test_torchs_own_tensorboard_is_not_loaded(loaded: set[str]) -> None:
    assert "torch.utils.tensorboard" not in loaded


PUBLIC = [
    "Alert", "Cause", "ClipCall", "GroupNorms", "Guard", "Incident", "Rule", "StepRecord", "Watch",
    "__version__", "default_rules", "errors", "global_norm", "read", "rules", "sinks", "track",
]  # fmt: skip


def test_public_names() -> None:
    assert set(PUBLIC) <= set(gradwatch.__all__)
    assert all(hasattr(gradwatch, name) for name in gradwatch.__all__)
    assert {"Console", "Jsonl", "Memory", "Prometheus", "TensorBoard"} <= set(gradwatch.sinks.__all__)
    classes = {"NonFinite", "Explosion", "Growth", "Vanishing", "Zero", "Stale", "Leaked"}
    classes |= {"ClipBroken", "ClipSaturated", "ClipOverflow"}
    assert classes | {"Rule", "Finding", "default_rules"} <= set(gradwatch.rules.__all__)
    assert all(hasattr(gradwatch.rules, name) for name in gradwatch.rules.__all__)
    assert all(hasattr(gradwatch.errors, name) for name in gradwatch.errors.__all__)


@pytest.mark.parametrize(
    ("error", "also"),
    [("ArgumentError", ValueError), ("TrackerStateError", RuntimeError), ("MissingExtraError", ImportError),
     ("SinkError", OSError)],
)  # fmt: skip
def test_errors_are_of_one_family(error: str, also: type[Exception]) -> None:
    kind = getattr(gradwatch.errors, error)
    assert issubclass(kind, gradwatch.errors.GradwatchError)
    assert issubclass(kind, also)


def test_import_and_track_leave_torch_as_it_was() -> None:
    script = """
import torch
from torch.nn.utils import clip_grad
def contents():
    names = [n for n in dir(clip_grad) if getattr(getattr(clip_grad, n), "__closure__", None)]
    return {n: [c.cell_contents for c in getattr(clip_grad, n).__closure__] for n in names}
before = contents()
assert "clip_grad_norm_" in before
import gradwatch
assert contents() == before
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with gradwatch.track(optimizer, model):
    assert contents() != before
    model(torch.ones(2)).sum().backward()
    optimizer.step()
after = contents()
assert all(x is y for n in before for x, y in zip(before[n], after[n], strict=True))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
