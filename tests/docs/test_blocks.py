"""Every block of every page: Python runs, page by page in one namespace, and prints what stands below it."""

from __future__ import annotations

import contextlib
import doctest
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gradwatch
from tests.docs.commands import try_commands
from tests.docs.pages import LANGUAGES, PAGES, Block, blocks_of, name_of

# What a page takes as its reader's own.
MODEL = """
import torch
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters())
"""
ACTOR_CRITIC = """
import gradwatch, torch
actor, actor_cnn, critic, critic_cnn = (torch.nn.Linear(2, 2) for _ in range(4))
actor_optimizer = torch.optim.SGD([*actor.parameters(), *actor_cnn.parameters()])
critic_optimizer = torch.optim.SGD([*critic.parameters(), *critic_cnn.parameters()])
"""
# A run that ends in an error leaves a file of the flight recorder, too.
RUN_THAT_FAILED = """
try:
    with gradwatch.track(actor_optimizer, actor, sinks=[gradwatch.sinks.Jsonl("run.jsonl")]):
        actor(torch.ones(1, 2)).sum().backward()
        actor_optimizer.step()
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
"""
GIVEN = {
    **dict.fromkeys(("README.md", "docs/report.md"), ACTOR_CRITIC + RUN_THAT_FAILED),
    **dict.fromkeys(("docs/rules.md", "docs/metrics.md"), MODEL),
}

# How many steps each loop of the page of loops makes, so that none is missed.
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


def page_cases() -> list[Any]:
    # Other libraries warn, of themselves and of the machine.
    loud = pytest.mark.filterwarnings("ignore")
    return [
        pytest.param(page, id=name_of(page), marks=loud if page.name == "loops.md" else ())
        for page in PAGES
        if any(blocks_of(page))
    ]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own; Accelerate would keep its first settings for the whole process."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    yield
    if "accelerate" in sys.modules:
        state = sys.modules["accelerate"].state
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


@pytest.mark.parametrize("page", page_cases())
def test_every_block_does_what_it_says(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    exec(GIVEN.get(name_of(page), ""), names)
    printed, left_out = "", []
    for block in blocks_of(page):
        where = f"{name_of(page)}:{block.line}"
        assert block.language in LANGUAGES, f"{where} does not say what it is"
        if block.language == "output":
            assert alike(block.text, printed), f"{where} is not what the block above it prints:\n{printed}"
            continue
        try:
            printed = tried(block, where, names)
        except (ModuleNotFoundError, gradwatch.errors.MissingExtraError) as missing:
            if (missing.name or "").startswith("gradwatch"):
                raise
            left_out.append(f"line {block.line}: {missing}")
            printed = "..."
    if left_out:
        pytest.skip(f"all but {', '.join(left_out)}")


def tried(block: Block, where: str, names: dict[str, Any]) -> str:
    """Run or check one block; what it has printed."""
    if block.language == "sh":
        return try_commands(block.text)
    if block.language == "yaml":
        pytest.importorskip("yaml").safe_load(block.text)
    if block.language != "python":
        return ""
    # Two suites at once must not meet at one port.
    text = block.text.replace("port=19109", "port=0")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("\n" * block.line + text, where.partition(":")[0], "exec"), names)
    for watch in {id(value): value for value in names.values() if isinstance(value, gradwatch.Watch)}.values():
        assert watch.health().internal_errors == 0, where
    if block.heading in STEPS:
        misses_no_step(names["watch"], STEPS[block.heading])
    return printed.getvalue()


def misses_no_step(watch: gradwatch.Watch, steps: dict[str, int]) -> None:
    assert {name: record.step for name, record in watch.last.items()} == steps
    assert len(watch.history) == sum(steps.values())
    assert all(math.isfinite(record.norm_before) for record in watch.history)
    assert not watch.alerts


def alike(expected: str, printed: str) -> bool:
    """As doctest compares: ``...`` stands for anything, and where a line breaks depends on how long that is."""
    how = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected, printed, how)


def test_every_loop_of_the_page_is_counted() -> None:
    (loops,) = [page for page in PAGES if page.name == "loops.md"]
    headings = [block.heading for block in blocks_of(loops)]
    assert headings == ["Loops to copy", *STEPS]
