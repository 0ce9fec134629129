"""A stage of the run: what it found, and how one that breaks leaves the others alone."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Settings:
    """How to run: ``quick`` makes everything small, for a machine without a GPU."""

    device: torch.device
    quick: bool


@dataclass(frozen=True)
class Table:
    """A heading and rows of cells, all words."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass
class Found:
    """What a stage found: tables to read, data to compute with, what failed, and what was left out and why."""

    tables: list[Table] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0


Stage = Callable[[Settings, Found], None]


def carried_out(name: str, stage: Stage, settings: Settings, say: Callable[[str], None] = print) -> Found:
    """Run a stage; one that raises has failed with what it raised, and keeps what it had found until then."""
    say(f"... {name}")
    found, began = Found(), time.perf_counter()
    try:
        stage(settings, found)
    except Exception as error:
        found.failures.append(f"the stage broke: {type(error).__name__}: {error}")
        found.data["traceback"] = traceback.format_exc()
        say(found.data["traceback"])
    found.seconds = time.perf_counter() - began
    verdict = f"{len(found.failures)} failed" if found.failures else "passed"
    say(f"    {name}: {verdict}, {found.seconds:.1f} s")
    return found
