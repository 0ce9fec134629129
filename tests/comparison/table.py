"""The table of the page: a row for each tool, a column for each case."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from pathlib import Path

import torch

from tests.comparison.cases import CASES, Case
from tests.comparison.tools import TOOLS, Said, made, train

TRUTH = "what is true, in float64"


def there(tool: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(TOOLS[tool][0]) is not None


@functools.cache
def row(tool: str) -> str:
    """What one tool says of each case; a dash where it does not say."""
    cells = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            cells.append(_cell(case, truth(case) if tool == TRUTH else TOOLS[tool][1](case, Path(folder))))
    return "| " + " | ".join([tool, *cells]) + " |"


def head() -> str:
    names = ["", *(case.name for case in CASES)]
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def truth(case: Case) -> Said:
    """Looked at in the loop itself: at the last backward, and at the step."""
    model, optimizer = made(case)
    said = Said()
    ways = [case.first, 0.0 if case.last is None else case.last]
    said.before = (case.elements * sum(way**2 for way in ways)) ** 0.5

    def look(_: torch.Tensor) -> None:
        grads = [p.grad.double() for p in model.parameters() if p.grad is not None]
        said.after = float(sum(float(g.square().sum()) for g in grads) ** 0.5)

    train(case, model, optimizer, look)
    return said


def _cell(case: Case, said: Said) -> str:
    if case.last is None:
        of_last = said.last if said.last_after is None else said.last_after
        return f"`last`: {_number(of_last)}"
    if said.before is None and said.after is None:
        return f"`last`: {_number(said.last)} -> {_number(said.last_after)}"
    return f"{_number(said.before)} -> {_number(said.after)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
