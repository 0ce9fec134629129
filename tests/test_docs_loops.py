"""Each loop of the page on loops runs as it is, and every step of it has a finite norm."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.library import library

PAGE = (Path(__file__).parents[1] / "docs" / "loops.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
HEAD = BLOCKS[0]
LOOPS = {
    section.split("\n", 1)[0]: block
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    for block in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
}
STEPS = {
    "A plain loop": {"optimizer": 20},
    "Lightning": {"optimizer": 20},
    "transformers' Trainer": {"optimizer": 20},
    "Stable-Baselines3": {"actor": 25, "critic": 50},
    "Accelerate": {"optimizer": 20},
    "Several optimizers: a GAN": {"generator": 20, "critic": 20},
    "Mixed precision": {"optimizer": 20},
    "Gradient accumulation": {"optimizer": 5},
}
LIBRARIES = {
    "Lightning": "pytorch_lightning",
    "transformers' Trainer": "transformers",
    "Stable-Baselines3": "stable_baselines3",
    "Accelerate": "accelerate",
}


@pytest.fixture(autouse=True)
def no_accelerator_is_kept() -> Iterator[None]:
    """Accelerate keeps its first settings for the whole process."""
    yield
    if "accelerate" in sys.modules:
        state = sys.modules["accelerate"].state
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


def test_every_loop_is_here_and_has_a_section_of_its_own() -> None:
    assert list(LOOPS) == list(STEPS)
    assert len(BLOCKS) == 1 + len(LOOPS)


@pytest.mark.parametrize(
    "loop", [pytest.param(loop, marks=pytest.mark.interop if loop in LIBRARIES else ()) for loop in STEPS]
)
@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_it_runs_and_misses_no_step(loop: str, tmp_path: Path, monkeypatch: Any) -> None:
    if loop in LIBRARIES:
        library(LIBRARIES[loop])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(HEAD + LOOPS[loop], f"docs/loops.md, {loop}", "exec"), names)
    watch = names["watch"]
    assert {name: record.step for name, record in watch.last.items()} == STEPS[loop]
    assert len(watch.history) == sum(STEPS[loop].values())
    assert all(math.isfinite(record.norm_before) for record in watch.history)
    assert not watch.alerts
