"""What happened, in words: an incident told on as many lines as it takes, those that go on set in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from gradwatch.alerts import Alert, Incident
from gradwatch.printing import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

__all__ = ["Story", "in_lines", "style_of"]

# Colour only repeats what a word or a mark beside it says.
_STYLES = {"critical": "bold red", "warning": "yellow"}


def style_of(told: Alert | Incident) -> str:
    """The rich style of the words of an alert or an incident."""
    if isinstance(told, Incident):
        return _STYLES[told.severity] if told.over is None else "green"
    if told.state == "firing":
        return _STYLES[told.severity]
    return "green" if told.state == "resolved" else "cyan"


def in_lines(words: str, width: int) -> Iterator[str]:
    """Each line of some words on lines no wider than that; what goes on stands further right than it began."""
    for line in printable(words).splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        # Names have hyphens, and are read as a whole.
        yield from wrap(line, width, subsequent_indent=f"{indent}  ", break_on_hyphens=False)


@dataclass(frozen=True)
class Story:
    """An incident, or a sentence, for rich.

    Attributes:
        told: which.
    """

    told: Incident | str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Its lines; as Text, a bracket in a name is no markup."""
        from rich.text import Text

        style = style_of(self.told) if isinstance(self.told, Incident) else ""
        for line in in_lines(str(self.told), options.max_width):
            yield Text(line, style)
