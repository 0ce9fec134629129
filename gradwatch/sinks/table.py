"""The picture of a run, as rich shows it on a terminal, in a notebook or in a file.

::

    console = rich.console.Console(record=True, width=100)
    console.print(Picture(watch.last.values(), watch.incidents))
    console.save_svg("run.svg")

What is wrong comes first: incidents, then the modules that are ill, then the others in their order. A line is
never wrapped: names that are too long are cut, so that they still differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gradwatch.records import Alert, GroupNorms, Incident, StepRecord
from gradwatch.sinks.figures import Figures, number, of_line, of_whole
from gradwatch.sinks.names import fitted, shortened
from gradwatch.sinks.story import style_of
from gradwatch.sinks.trend import Trend

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

__all__ = ["Picture"]

# Cells: a number of three digits with a gap before it; what a note takes, such as "clipped at 0.1".
_NUMBER, _NOTE, _LEAST_NAME = 9, 14, 16
_INDENT = "  "


@dataclass(frozen=True)
class Picture:
    """Incidents, then a line for each optimizer and each of its modules, the worst first.

    Attributes:
        records: the newest record of each optimizer.
        told: incidents or alerts to be told above the table.
        rows: lines at most; None for as many as there are.
        trend: by optimizer and module (None: the whole), how its norm went; the last argument: without more than
            ASCII.
        cost: the share of the time that gradwatch takes; None where it is not known.
        counts: whether what was told is counted only, since it stands elsewhere.
        run: the run's name, told where there is room.
    """

    records: Iterable[StepRecord]
    told: Sequence[Alert | Incident] = ()
    rows: int | None = None
    trend: Callable[[str, str | None, bool], str] | None = None
    cost: float | None = None
    counts: bool = False
    run: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines, none wider than there is room for."""
        page = _Page(options.max_width, options.ascii_only, self.trend)
        told, table = [] if self.counts else list(self._told(page)), list(self._table(page))
        head = page.title(*self._title("nothing fires" if table else "no step yet"))
        if self.rows is not None:
            # Half is for what happened, and all that the table leaves free.
            room = self.rows - 1
            told = _cut(told, max(room // 2, room - len(table)), page)
            table = _cut(table, room - len(told), page)
        yield head
        yield from (line.text for line in (*told, *table))

    def _title(self, well: str) -> tuple[str, str]:
        lasting = [told for told in self.told if _lasts(told)]
        noun = "incident" if isinstance(next(iter(lasting), None), Incident) else "alert"
        plural = "" if len(lasting) == 1 else "s"
        counted = f"{len(lasting)} {noun}{plural} not over" if lasting else well
        cost = "" if self.cost is None else f", takes {self.cost:.1%} of the time"
        return f"gradwatch: {counted}{cost}", f", run {self.run}" if self.run else ""

    def _told(self, page: _Page) -> Iterator[_Line]:
        """What is not over, critical first, then newest first; behind the first story what to do."""
        worst_first = sorted(self.told, key=lambda t: (not _lasts(t), t.severity != "critical", -_since(t)))
        for place, told in enumerate(worst_first):
            head, *rest = str(told).splitlines()
            yield _Line(page.text(head, style_of(told)))
            if place == 0 and _lasts(told):
                yield from (_Line(page.sentence(line)) for line in rest if line.startswith("  To do: "))

    def _table(self, page: _Page) -> Iterator[_Line]:
        """By optimizer, that with the most modules that are ill first, and these first in it."""
        groups = [_group(record, page) for record in self.records]
        if groups:
            yield _Line(page.row("norm (L2)", ("before", "after", "ratio"), "trend", style="bold"))
        for group in sorted(groups, key=lambda lines: -sum(not line.may_go for line in lines)):
            yield from group


class _Line(NamedTuple):
    text: Text
    may_go: bool = False


class _Page(NamedTuple):
    """How wide a line may be, and what may stand in it."""

    width: int
    ascii_only: bool
    trend: Callable[[str, str | None, bool], str] | None

    @property
    def gap(self) -> str:
        return "..." if self.ascii_only else "…"

    def title(self, words: str, run: str) -> Text:
        from rich.cells import cell_len

        dash = "-" if self.ascii_only else "─"
        if cell_len(words + run) + 6 <= self.width:
            words += run
        return self.text(f"{dash * 2} {words} ".ljust(self.width, dash), "bold")

    def text(self, words: str, style: str) -> Text:
        from rich.text import Text

        # Names are the user's: as Text, a bracket in them is no markup.
        return Text(shortened(words, self.width, self.gap), style, no_wrap=True, overflow="crop")

    def sentence(self, words: str) -> Text:
        """Words, of which the end is left out where there is no room."""
        from rich.cells import cell_len, set_cell_size

        if cell_len(words) > self.width:
            words = set_cell_size(words, self.width - len(self.gap)) + self.gap
        return self.text(words, "")

    def row(self, name: str, numbers: Sequence[str], trend: str = "", note: str = "", style: str = "") -> Text:
        """A name and its numbers, then the trend, which gives way on a narrow screen, and a note."""
        from rich.cells import set_cell_size

        cells = "".join(f"{value:>{_NUMBER}}" for value in numbers)
        if self._has_trend:
            cells += f" {trend:<{Trend.SHARES}}"
        named = set_cell_size(shortened(name, self._room, self.gap), self._room)
        return self.text(f"{named}{cells} {note}".rstrip(), style)

    @property
    def _has_trend(self) -> bool:
        return self.width >= _LEAST_NAME + 3 * _NUMBER + Trend.SHARES + _NOTE + 2

    @property
    def _room(self) -> int:
        """Cells for a name."""
        trend = Trend.SHARES + 1 if self._has_trend else 0
        return max(self.width - 3 * _NUMBER - trend - _NOTE - 1, _LEAST_NAME)

    def names(self, names: tuple[str, ...]) -> Mapping[str, str]:
        """Each as it is shown, within the optimizer's indent."""
        return fitted(names, self._room - len(_INDENT), self.gap)

    def history(self, optimizer: str, module: str | None) -> str:
        return "" if self.trend is None else self.trend(optimizer, module, self.ascii_only)


def _cut(lines: list[_Line], most: int, page: _Page) -> list[_Line]:
    """So many lines at most: the last go, at first of those that may, and the last line counts them."""
    if len(lines) <= most:
        return lines
    gone = len(lines) - max(most - 1, 0)
    by_worth = sorted(range(len(lines)), key=lambda place: (lines[place].may_go, place))
    kept = sorted(by_worth[: len(lines) - gone])
    return [*(lines[place] for place in kept), _Line(page.text(f"{page.gap} and {gone} more lines", "dim"))][:most]


def _lasts(told: Alert | Incident) -> bool:
    return told.over is None if isinstance(told, Incident) else told.state != "resolved"


def _since(told: Alert | Incident) -> int:
    return told.since if isinstance(told, Incident) else told.step


def _group(record: StepRecord, page: _Page) -> list[_Line]:
    """An optimizer and its modules, those first of which there is something to say."""
    trend = page.history(record.optimizer, None)
    name = f"{record.optimizer}, step {record.step}"
    head = page.row(name, _cells(of_whole(record)), trend, _optimizer_note(record), style="bold")
    ill: list[Text] = []
    well: list[Text] = []
    shown = page.names(tuple(record.modules))
    for name, norms in record.modules.items():
        note, style = _module_note(record, name, norms)
        cells, trend = _cells(of_line(record, name)), page.history(record.optimizer, name)
        (ill if note else well).append(page.row(f"{_INDENT}{shown[name]}", cells, trend, note, style))
    return [_Line(head), *map(_Line, ill), *(_Line(line, may_go=True) for line in well)]


def _cells(figures: Figures) -> list[str]:
    return [number(figure, 3) for figure in figures]


def _optimizer_note(record: StepRecord) -> str:
    if record.nonfinite or record.skipped:
        return "skipped" if record.skipped else "not finite"
    if record.max_norm is None:
        return ""
    return f"{'clipped at' if record.clipped else 'limit'} {record.max_norm:g}"


def _module_note(record: StepRecord, name: str, norms: GroupNorms) -> tuple[str, str]:
    """What is wrong in a word, and its style."""
    if name in record.missing_modules:
        return "no gradient", "bold red"
    if not math.isfinite(norms.norm_before):
        return "not finite", "bold red"
    if record.skipped:
        return "", "dim"
    if not math.isfinite(norms.norm_after):
        return "not finite", "bold red"
    return ("ZERO", "bold red") if norms.norm_after == 0.0 else ("", "")
