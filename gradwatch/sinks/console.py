"""A live table in the terminal; plain lines where the output is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gradwatch.blocks import Steps
from gradwatch.incidents import Incidents
from gradwatch.records import Alert, Health, Incident, RunInfo, StepRecord
from gradwatch.sinks.table import number, render, style_of

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.live import Live

__all__ = ["Console"]


class Console:
    """Shows a row for each optimizer and module: norm before, norm after, ratio, limit; beneath it what fires.

    Each alert is also printed as a line when it comes, so that it can be scrolled back to, and at the end each
    incident as a story. It all goes through rich's own console: a progress bar of rich and the table share the
    screen. Where the output is no terminal, there are the alerts, a status line every ten seconds and the end.
    """

    # Told to the tracker: the alerts need not be logged as well.
    speaks = True

    REFRESH_SECONDS = 0.25
    STATUS_SECONDS = 10.0
    STORIES = 5

    def __init__(self) -> None:
        # Where the newest record of each optimizer is: few of them are ever shown, and only those are made.
        self._newest: dict[str, tuple[Sequence[StepRecord], int]] = {}
        self._incidents = Incidents(most=self.STORIES)
        self._fired = 0
        self._console: RichConsole | None = None
        self._live: Live | None = None
        self._shown_at = 0.0

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Begin to show."""
        from rich import get_console

        self._newest, self._incidents, self._fired = {}, Incidents(run.time, self.STORIES), 0
        self._console = get_console()
        self._live = _started_live(self._console)
        self._shown_at = time.monotonic()

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Say each alert at once, and show the newest norms where the last showing is long enough ago."""
        self._newest.update(Steps.of(records).newest())
        for alert in alerts:
            self._incidents.take(alert)
            self._fired += alert.state == "firing"
            self._print(str(alert), style_of(alert))
        period = self.STATUS_SECONDS if self._live is None else self.REFRESH_SECONDS
        if time.monotonic() - self._shown_at >= period:
            self._show(self._incidents.active())

    def close(self) -> None:
        """Show the last state and let go of the terminal."""
        if self._console is None:
            return
        try:
            self._show()  # the stories come right below
            self._tell_the_stories()
        finally:
            live, self._live, self._console = self._live, None, None
            if live is not None:
                live.stop()

    def _show(self, incidents: Sequence[Incident] = ()) -> None:
        self._shown_at = time.monotonic()
        records = [held[place] for held, place in self._newest.values()]
        if self._live is not None:
            self._live.update(render(records, incidents), refresh=True)
        else:
            for record in records:
                self._print(_status_line(record))

    def _tell_the_stories(self) -> None:
        """The last that is on the screen: whoever reads nothing else knows what happened, why, and what to do."""
        incidents = self._incidents.all()
        shown = incidents[-self.STORIES :]
        number = len(incidents) + self._incidents.forgotten
        self._print(_summary(self._fired, number, len(self._incidents.active())))
        if len(shown) < number:
            self._print(f"The last {len(shown)}:")
        for incident in shown:
            self._print(str(incident), style_of(incident))

    def _print(self, line: str, style: str | None = None) -> None:
        if self._console is not None:
            self._console.print(line, style=style, soft_wrap=True, markup=False, highlight=False, emoji=False)


def _started_live(console: RichConsole) -> Live | None:
    """A live display; None where the output cannot show one, or is taken by another that allows none beside it."""
    from rich.errors import LiveError
    from rich.live import Live

    if not console.is_terminal or console.is_dumb_terminal:
        return None
    # Refreshed from the sinks' own thread, as often as there is news; rich's thread is not needed.
    live = Live(console=console, auto_refresh=False)
    try:
        live.start()
    except LiveError:
        return None
    return live


def _status_line(record: StepRecord) -> str:
    modules = ", ".join(f"{name} {number(norms.norm_after)}" for name, norms in record.modules.items())
    return (
        f"{record.optimizer} step {record.step}: norm {number(record.norm_before)} before, "
        f"{number(record.norm_after)} after clipping" + (f" ({modules})" if modules else "")
    )


def _summary(fired: int, incidents: int, lasting: int) -> str:
    if not fired:
        return "gradwatch: no alert fired."
    told = f"{_counted(fired, 'alert')} fired, in {_counted(incidents, 'incident')}"
    return f"gradwatch: {told}, {lasting} not over at the end."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
