"""The pages that people read, and the fenced blocks in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "carla_td3" / "README.md",
]
# What a block may be: run, held against what the block above has printed, read as commands, parsed, or only shown.
LANGUAGES = ("python", "output", "sh", "yaml", "text")


@dataclass(frozen=True)
class Block:
    """What stands between two fences, and the heading that it stands under."""

    language: str
    text: str
    heading: str
    line: int


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    heading, begun = "", -1
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        if begun >= 0 and line.startswith("```"):
            yield Block(lines[begun][3:].strip(), "".join(lines[begun + 1 : number]), heading, begun + 1)
            begun = -1
        elif begun < 0 and line.startswith("```"):
            begun = number
        elif begun < 0 and line.startswith("#"):
            heading = line.strip("# \n")
