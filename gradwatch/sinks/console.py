"""A live table in the terminal; plain lines where the output is none."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gradwatch.records import Alert, GroupNorms, Health, RunInfo, StepRecord
from gradwatch.sinks.words import in_words

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType
    from rich.live import Live

__all__ = ["Console", "table"]

_STYLES = {"critical": "bold red", "warning": "yellow"}


class Console:
    """Shows a row for each optimizer and module: norm before, norm after, ratio, limit; beneath it the alerts.

    It writes to rich's own console, so that a progress bar of rich and the table share the screen. Where the
    output is no terminal, alerts are printed at once and a status line every ten seconds.
    """

    # Told to the tracker: the alerts need not be logged as well.
    speaks = True

    REFRESH_SECONDS = 0.25
    STATUS_SECONDS = 10.0
    ALERTS_SHOWN = 5

    def __init__(self) -> None:
        self._newest: dict[str, StepRecord] = {}
        self._alerts: deque[Alert] = deque(maxlen=self.ALERTS_SHOWN)
        self._console: RichConsole | None = None
        self._live: Live | None = None
        self._shown_at = 0.0

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Begin to show."""
        from rich import get_console
        from rich.live import Live

        self._console = get_console()
        self._shown_at = time.monotonic()
        if self._console.is_terminal:
            # Refreshed from the sinks' own thread, as often as there is news; rich's thread is not needed.
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Take the news in, and show it where the last showing is long enough ago."""
        self._newest.update({record.optimizer: record for record in records})
        self._alerts.extend(alerts)
        if self._console is None:
            return
        if self._live is None:
            for alert in alerts:
                self._console.print(
                    in_words(alert), style=_style(alert), soft_wrap=True, markup=False, highlight=False
                )
        period = self.REFRESH_SECONDS if self._live is not None else self.STATUS_SECONDS
        if time.monotonic() - self._shown_at >= period:
            self._show()

    def close(self) -> None:
        """Show the last state and let go of the terminal."""
        if self._console is None:
            return
        self._show()
        if self._live is not None:
            self._live.stop()
        self._console = self._live = None

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        if self._live is not None:
            self._live.update(table(self._newest, self._alerts), refresh=True)
        elif self._console is not None:
            for record in self._newest.values():
                self._console.print(_status_line(record), soft_wrap=True, markup=False, highlight=False)


def table(newest: dict[str, StepRecord], alerts: Sequence[Alert]) -> RenderableType:
    """The table of the newest records, with the alerts beneath it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(title="gradient norms (L2)", title_justify="left", header_style="bold")
    grid.add_column("optimizer / module")
    for name in ("step", "before", "after", "after/before", "limit"):
        grid.add_column(name, justify="right")
    grid.add_column("")
    for record in newest.values():
        limit = "-" if record.max_norm is None else f"{record.max_norm:g}"
        whole = GroupNorms(record.norm_before, record.norm_after)
        note = "clipped" if record.clipped else ""
        grid.add_row(Text(record.optimizer, style="bold"), str(record.step), *_cells(whole), limit, note)
        for name, norms in record.modules.items():
            grid.add_row(f"  {name}", "", *_cells(norms), "", _note(record, name, norms), style=_row_style(norms))
    lines = [Text(in_words(alert), style=_style(alert)) for alert in alerts]
    return Group(grid, *(lines or [Text("no alerts", style="green")]))


def _cells(norms: GroupNorms) -> tuple[str, str, str]:
    ratio = norms.norm_after / norms.norm_before if norms.norm_before else math.nan
    return _number(norms.norm_before), _number(norms.norm_after), _number(ratio)


def _number(value: float) -> str:
    if value == 0.0:
        return "0"
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _note(record: StepRecord, module: str, norms: GroupNorms) -> str:
    if module in record.missing_modules:
        return "no gradient"
    return "ZERO" if norms.norm_after == 0.0 else ""


def _row_style(norms: GroupNorms) -> str:
    return "" if norms.norm_after > 0.0 else "bold red"


def _style(alert: Alert) -> str:
    return _STYLES[alert.severity] if alert.state == "firing" else "green" if alert.state == "resolved" else "cyan"


def _status_line(record: StepRecord) -> str:
    modules = ", ".join(f"{name} {_number(norms.norm_after)}" for name, norms in record.modules.items())
    return (
        f"{record.optimizer} step {record.step}: norm {_number(record.norm_before)} before, "
        f"{_number(record.norm_after)} after clipping" + (f" ({modules})" if modules else "")
    )
