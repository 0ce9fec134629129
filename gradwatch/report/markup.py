"""HTML from text: whatever is not markup already is escaped, in this file alone."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from gradwatch.printing import printable
from gradwatch.report.tables import Table

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


def table(numbers: Table) -> Markup:
    """A table that scrolls by itself where it is too wide, by keyboard too."""
    kinds = ["" if numbers.is_number(place) else "words" for place in range(len(numbers.columns))]
    columns = zip(numbers.columns, kinds, strict=True)
    head = join(element("th", column, scope="col", class_=kind) for column, kind in columns)
    rows = join(element("tr", *_cells(row, kinds)) for row in numbers.rows)
    drawn = element(
        "table", element("thead", element("tr", head)), element("tbody", rows), aria_label=numbers.title
    )
    scrolls = element("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=numbers.title)
    return join([element("p", numbers.title, class_="caption"), scrolls])


def _cells(row: Sequence[str], kinds: Sequence[str]) -> Iterator[Markup]:
    for place, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
        wraps = " long" if kind and len(cell) > _LONG else ""
        yield element("td", cell, class_=kind + wraps) if place else element("th", cell, scope="row", class_=kind)


# Characters beyond which a cell of words may wrap.
_LONG = 24


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(printable(text))


def _attribute(name: str, value: str | bool) -> str:
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{html.escape(printable(value))}"' if value else ""
