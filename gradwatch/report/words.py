"""A run on one screen: what is wrong and what to do, then tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from gradwatch.alerts import Incident
from gradwatch.printing import printable
from gradwatch.report.run import Flight, Run
from gradwatch.report.series import Series, all_series
from gradwatch.report.tables import (
    Table,
    by_line,
    by_optimizer,
    by_parameter,
    by_step,
    limits,
    median,
    number,
    share,
)
from gradwatch.sinks.names import fitted
from gradwatch.sinks.story import in_lines

__all__ = ["about", "clipping", "lasting", "told"]

# Incidents that are told in full, and those of which there is a line; the page has all of them.
_TOLD, _NAMED = 3, 8

# Cells that a name may take in a table, however little room there is.
_LEAST = 16


def told(run: Run, width: int = 80) -> Iterator[str]:
    """The lines to print, none wider than asked for, but for a table of too many numbers."""
    series = all_series(run.steps)
    for words in (about(run), *(clipping(one) for one in series)):
        yield from in_lines(words, width)
    yield from _incidents(run.incidents(), run, width)
    yield from _flights(run.flights, width)
    if series:
        yield from _drawn(by_optimizer(series), width)
    for one in series:
        yield from _drawn(by_line(one), width) if one.lines else ()
        yield from _drawn(by_step(one), width)
        if one.steps[-1].parameters:
            yield from _drawn(by_parameter(one.steps[-1]), width)


def about(run: Run) -> str:
    """The run in a sentence, and what of the file is not told."""
    steps = (
        ", ".join(f"{_counted(len(steps), 'step')} of {name}" for name, steps in run.steps.items()) or "no step"
    )
    known = (name for name in ("gradwatch", "torch", "python") if name in run.head)
    versions = ", ".join(f"{name} {run.head[name]}" for name in known)
    words = f"Run {run.name}{_began(run)}: {steps}{lasting(run.lasted, ' in {}')}. {versions}."
    if run.others:
        named = ", ".join(run.others[-_NAMED:])
        count = _counted(len(run.others), "other run")
        newest = f", the newest {named}" if len(run.others) > _NAMED else f": {named}"
        words += f" The file holds {count}, to be chosen by `--run NAME`{newest}."
    if run.torn:
        words += f" {_counted(run.torn, 'line')} of the file cannot be read."
    return words


def clipping(one: Series) -> str:
    """What clipping did to an optimizer, in a sentence."""
    before, after = number(median(one.before[~one.missing])), number(median(one.after[~one.unconsumed]))
    norms = f"{one.optimizer}: median norm {before} before clipping, {after} after"
    if limits(one.limit) == "none":
        return f"{norms}; nothing clips by a norm."
    above = f"above the limit {limits(one.limit)}"
    often = {"none": f"never {above}", "all": f"{above} in every step"}
    return f"{norms}; {often.get(share(one.clipped), f'{above} in {share(one.clipped)} of the steps')}."


def lasting(seconds: float, form: str = "{}") -> str:
    """A time in the two units that matter, in a phrase; nothing where it is not known."""
    if not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return form.format(f"{hours} h {minutes} min")
    return form.format(f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s")


def _began(run: Run) -> str:
    try:
        return time.strftime(", begun on %Y-%m-%d at %H:%M UTC", time.gmtime(run.began))
    except (ValueError, OverflowError, OSError):
        return ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _incidents(incidents: Sequence[Incident], run: Run, width: int) -> Iterator[str]:
    if not incidents:
        rules = run.head.get("rules")
        watched = f", {len(rules)} rules watched" if isinstance(rules, dict) and rules else ""
        yield from ("", f"No incident{watched}.")
    for incident in incidents[:_TOLD]:
        yield ""
        yield from in_lines(str(incident), width)
    if incidents[_TOLD:]:
        yield ""
    for incident in incidents[_TOLD : _TOLD + _NAMED]:
        yield from in_lines(str(incident).splitlines()[0], width)
    if len(incidents) > _TOLD + _NAMED:
        yield f"and {len(incidents) - _TOLD - _NAMED} more: `--html FILE` writes a page with all of them"


def _flights(flights: Sequence[Flight], width: int) -> Iterator[str]:
    for flight in flights:
        yield ""
        words = f"{flight.file}, of the flight recorder: the last {_counted(flight.steps, 'step')} before"
        yield from in_lines(f"{words} {flight.reason.splitlines()[0] if flight.reason else 'that'}", width)


def _drawn(table: Table, width: int) -> Iterator[str]:
    """Columns that are as wide as they must be, the first and what is in words to the left."""
    from rich.cells import cell_len, set_cell_size

    cells = [list(table.columns), *([" ".join(name.split("\n")), *rest] for name, *rest in table.rows)]
    widths = _widths(cells)
    if sum(widths) + 2 * len(widths[1:]) > width:
        cells = _telling(cells)
        widths = _widths(cells)
    names = fitted(tuple(row[0] for row in cells), max(width - sum(widths[1:]) - 2 * len(widths[1:]), _LEAST))
    widths[0] = max(map(cell_len, names.values()))
    yield ""
    yield printable(table.title)
    for name, *rest in cells:
        padded = (
            set_cell_size(cell, room) if head in (table.columns[0], *table.words) else cell.rjust(room)
            for head, cell, room in zip(cells[0], (names[name], *rest), widths, strict=True)
        )
        # What is too long at the end goes on below.
        yield from in_lines("  ".join(padded).rstrip(), max(width, sum(widths[:-1]) + 2 * len(widths) + _LEAST))


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(*cells, strict=True)]


def _telling(cells: list[list[str]]) -> list[list[str]]:
    """Without the columns that say ``none`` in every row."""
    kept = [place for place, (_, *column) in enumerate(zip(*cells, strict=True)) if {*column} != {"none"}]
    return [[row[place] for place in kept] for row in cells]
