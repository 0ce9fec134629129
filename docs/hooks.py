"""What the site changes in the pages, which are written to be read in the repository too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?!\w+:)[^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> None:
    """The section of decisions has every page of its folder: a new one is to be written, and not to be listed."""
    pages = sorted(page.relative_to(FOLDER).as_posix() for page in (FOLDER / "decisions").glob("*.md"))
    (section,) = [entry for group in config.nav for entry in _sections(group) if "Decisions" in entry]
    section["Decisions"] = ["decisions/index.md", *(page for page in pages if not page.endswith("index.md"))]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A link out of this folder becomes its words and the path: the site has no page for it."""
    here = FOLDER / Path(page.file.src_uri).parent
    return LINK.sub(lambda link: _inside(link, here), markdown)


def _sections(group: Any) -> Iterator[dict[str, Any]]:
    if isinstance(group, dict):
        for entries in group.values():
            yield from (entry for entry in entries if isinstance(entry, dict))


def _inside(link: re.Match[str], here: Path) -> str:
    target = Path(os.path.normpath(here / link[2]))
    if target.is_relative_to(FOLDER):
        return link[0]
    path = target.relative_to(FOLDER.parent).as_posix()
    return f"`{path}`" if link[1].strip("`") == path else f"{link[1]} (`{path}`)"
