"""The run as one Markdown page and one JSON file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tests.gpu.stages import Found, Table


def markdown(card: str, found: dict[str, Found]) -> str:
    """All tables, what was left out, and what failed in plain words."""
    parts = [f"# gradwatch on {card}"]
    parts += [as_markdown(table) for stage in found.values() for table in stage.tables]
    times = [(name, f"{stage.seconds:.1f}", str(len(stage.failures))) for name, stage in found.items()]
    parts.append(as_markdown(Table("Stages", ("stage", "seconds", "failures"), times)))
    for title, of in (("Left out", "left_out"), ("Failed", "failures")):
        lines = [f"- {_one_line(line)}" for stage in found.values() for line in getattr(stage, of)]
        parts.append("\n".join([f"## {title}", "", *(lines or ["Nothing."])]))
    return "\n\n".join(parts) + "\n"


def as_markdown(table: Table) -> str:
    """The table below its title; a bar inside a cell does not end it."""
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    drawn = ["| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"## {table.title}", "", *drawn])


def write(folder: Path, page: str, card: str, found: dict[str, Found]) -> None:
    """``gpu.md`` and ``gpu.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.md").write_text(page, encoding="utf-8")
    stages = {
        name: {"seconds": one.seconds, "failures": one.failures, "left_out": one.left_out, "data": one.data}
        for name, one in found.items()
    }
    told = json.dumps(_spelled({"card": card, "stages": stages}), indent=1, default=str)
    (folder / "gpu.json").write_text(told + "\n", encoding="utf-8")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _spelled(value: Any) -> Any:
    """Numbers that JSON lacks as words."""
    if isinstance(value, dict):
        return {key: _spelled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
