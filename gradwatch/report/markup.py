"""HTML from text: whatever is not markup already is escaped, in this file alone."""

from __future__ import annotations

import html
from collections.abc import Iterable

from gradwatch.report.tables import Table
from gradwatch.sinks.labels import printable

__all__ = ["Markup", "element", "join", "table"]

class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | bool) -> Markup:
    """An element; with an empty tag, its content alone.

    Args:
        tag: its name.
        content: markup as it is, any other text escaped.
        attributes: a trailing underscore is left out, one within is a hyphen.
    """
    inner = "".join(map(_escaped, content))
    if not tag:
        return Markup(inner)
    given = "".join(_attribute(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    return Markup(f"<{tag}{given}>{inner}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """Markup, one after another; other text escaped."""
    return element("", *parts)


def table(numbers: Table, in_words: bool = False) -> Markup:
    """A table that scrolls by itself where it is too wide, by keyboard too; in words, its cells wrap."""
    head = join(element("th", column, scope="col") for column in numbers.columns)
    rows = join(element("tr", *_cells(row, in_words)) for row in numbers.rows)
    drawn = element(
        "table",
        element("caption", numbers.title),
        element("thead", element("tr", head)),
        element("tbody", rows),
        class_="words" if in_words else "numbers",
    )
    return element("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=numbers.title)


def _cells(row: tuple[str, ...], in_words: bool) -> Iterable[Markup]:
    yield element("th", row[0], scope="row")
    for cell in row[1:]:
        yield element("td", cell, class_="long" if in_words and len(cell) > _LONG else "")


# Characters beyond which a cell of words may wrap.
_LONG = 24


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(printable(text))


def _attribute(name: str, value: str | bool) -> str:
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{html.escape(printable(value))}"'
