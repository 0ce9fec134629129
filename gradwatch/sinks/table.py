"""The table of the newest norms, as rich shows it: on a terminal, or in a picture.

::

    console = rich.console.Console(record=True, width=100)
    console.print(render(watch.last.values(), watch.active))
    console.save_svg("run.svg")
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from gradwatch.records import Alert, GroupNorms, Incident, StepRecord, clip_ratio

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["number", "render", "style_of"]

# Colour only repeats what a word or a mark beside it says.
_STYLES = {"critical": "bold red", "warning": "yellow"}


def render(
    records: Iterable[StepRecord], alerts: Sequence[Alert | Incident] = (), alerts_shown: int = 5
) -> RenderableType:
    """A row for each optimizer and for each of its modules; beneath it the alerts or incidents, the newest last.

    Args:
        records: the newest record of each optimizer.
        alerts: what to say beneath the table.
        alerts_shown: at most so many of them, the newest; the number of the others is named.
    """
    from rich.console import Group

    return Group(_grid(records), *_lines(alerts, alerts_shown))


def style_of(told: Alert | Incident) -> str:
    """The rich style of the words of an alert or an incident."""
    if isinstance(told, Incident):
        return _STYLES[told.severity] if told.over is None else "green"
    if told.state == "firing":
        return _STYLES[told.severity]
    return "green" if told.state == "resolved" else "cyan"


def number(value: float) -> str:
    """Four digits; what is not finite by its name."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _grid(records: Iterable[StepRecord]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table(title="gradient norms (L2)", title_justify="left", header_style="bold")
    grid.add_column("optimizer / module")
    for name in ("step", "before", "after", "after/before", "limit"):
        grid.add_column(name, justify="right")
    grid.add_column("")
    for record in records:
        limit = "none" if record.max_norm is None else f"{record.max_norm:g}"
        cells = _cells(record.norm_before, record.norm_after, record.clip_ratio)
        note = _optimizer_note(record)
        # Names are the user's: as Text, a bracket in them is no markup.
        grid.add_row(Text(record.optimizer, style="bold"), str(record.step), *cells, limit, note)
        for name, norms in record.modules.items():
            note, style = _module_note(record, name, norms)
            ratio = clip_ratio(norms.norm_before, norms.norm_after)
            cells = _cells(norms.norm_before, norms.norm_after, ratio)
            grid.add_row(Text(f"  {name}"), "", *cells, "", note, style=style)
    return grid


def _cells(before: float, after: float, ratio: float) -> tuple[str, str, str]:
    return number(before), number(after), number(ratio)


def _optimizer_note(record: StepRecord) -> str:
    notes = {"not finite": bool(record.nonfinite), "skipped": record.skipped, "clipped": record.clipped}
    return ", ".join(note for note, holds in notes.items() if holds)


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


def _lines(alerts: Sequence[Alert | Incident], most: int) -> Iterator[RenderableType]:
    from rich.text import Text

    if not alerts:
        yield Text("no alerts", style="green")
    shown = alerts[-most:]
    if len(shown) < len(alerts):
        yield Text(f"and {len(alerts) - len(shown)} older")
    for alert in shown:
        yield Text(str(alert), style=style_of(alert))
