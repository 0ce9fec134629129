"""What a run says to the person in front of it: a panel in a terminal or a notebook, else plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from gradwatch.blocks import Steps
from gradwatch.incidents import Incidents
from gradwatch.printing import printable
from gradwatch.records import Alert, Health, Incident, RunInfo, StepRecord
from gradwatch.sinks.curves import curves
from gradwatch.sinks.figures import number, of_line, of_whole
from gradwatch.sinks.notebook import Notebook, notebook
from gradwatch.sinks.saying import say
from gradwatch.sinks.story import Story
from gradwatch.sinks.table import Picture
from gradwatch.sinks.terminal import Terminal, terminal_of
from gradwatch.sinks.trend import Trend

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType

__all__ = ["Console"]


class Console:
    """Shows what is wrong, then a line for each optimizer and module: norm before, norm after, ratio and trend.

    In a terminal it holds the last rows and lets everything else scroll above them, so that bars of tqdm, rich,
    Lightning or transformers, prints and logs go on as they are; several share these rows. In a notebook it is a
    table that changes in place. At the end the last state and the story of each incident are printed. Where the
    output is neither, there are the alerts as they come, a status line, and the stories.

    Args:
        rows: of the terminal at most; None: half of them.
        interval: seconds between two drawings, or two status lines; None: a quarter, in a notebook one, and ten
            between status lines.
        width: cells at most; None: all that there are.
    """

    # Told to the tracker: the alerts need not be logged as well.
    speaks = True

    REFRESH_SECONDS = 0.25
    NOTEBOOK_SECONDS = 1.0
    STATUS_SECONDS = 10.0
    STORIES = 5

    def __init__(
        self, *, rows: int | None = None, interval: float | None = None, width: int | None = None
    ) -> None:
        self._rows, self._interval, self._width = rows, interval, width
        # Where the newest record of each optimizer is: few of them are ever shown, and only those are made.
        self._newest: dict[str, tuple[Sequence[StepRecord], int]] = {}
        self._trends: dict[str, tuple[Mapping[str | None, int], Trend]] = {}
        self._incidents = Incidents(most=self.STORIES)
        self._fired = 0
        self._screen: Terminal | Notebook | None = None
        self._open = False
        self._began = self._shown_at = 0.0
        self._health: Callable[[], Health] = Health
        self._run = ""

    def open(self, run: RunInfo, health: Callable[[], Health]) -> None:
        """Find out where the output goes, and begin to show."""
        self._newest, self._trends = {}, {}
        self._incidents, self._fired = Incidents(run.time, self.STORIES), 0
        self._health, self._run = health, run.run
        # One of many ranks has the screen; the others say what fires.
        self._screen = None if run.rank else notebook() or _terminal(self)
        self._tells_status = not run.rank
        self._open = True
        self._began = self._shown_at = time.monotonic()

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Take in what is new, and show it where the last showing is long enough ago."""
        steps = Steps.of(records)
        self._newest.update(steps.newest())
        for alert in alerts:
            self._incidents.take(alert)
            self._fired += alert.state == "firing"
            if self._screen is None:
                say(str(alert))
        if self._screen is not None:
            self._follow(steps)
        now = time.monotonic()
        if now - self._shown_at >= self._period():
            self._shown_at = now
            self._show()

    def close(self) -> None:
        """Give the terminal back, and tell what happened, why, and what to do, for who reads nothing else."""
        if not self._open:
            return
        screen, self._screen, self._open = self._screen, None, False
        if isinstance(screen, Notebook):
            screen.show(_joined(self._picture(counts=True), *self._stories()), self._width)
            return
        if screen is None:
            self._tell_status()
            say("\n".join(str(line) for line in self._stories()))
            return
        screen.leave(self)
        say(self._last_words(screen), _speaking(screen))

    def _period(self) -> float:
        if self._interval is not None:
            return self._interval
        if self._screen is None:
            return self.STATUS_SECONDS
        return self.REFRESH_SECONDS if isinstance(self._screen, Terminal) else self.NOTEBOOK_SECONDS

    def _follow(self, steps: Steps) -> None:
        for shown in curves(steps):
            places = {name: place for place, name in enumerate((None, *shown.modules))}
            known = self._trends.get(shown.optimizer)
            if known is None or known[0] != places:
                known = self._trends[shown.optimizer] = places, Trend(len(places))
            # Of each pair of norms the one before clipping, the whole first.
            known[1].add(shown.steps, shown.norms[:, [0, *range(3, shown.norms.shape[1], 2)]])

    def _trend(self, optimizer: str, module: str | None, ascii_only: bool) -> str:
        places, trend = self._trends[optimizer]
        return trend.drawn(places[module], ascii_only)

    def _show(self) -> None:
        if isinstance(self._screen, Terminal):
            self._screen.show(self, self._drawn, self._width, self._rows)
        elif self._screen is not None:
            self._screen.show(self._picture(), self._width)
        else:
            self._tell_status()

    def _drawn(self, width: int, rows: int) -> list[str]:
        assert isinstance(self._screen, Terminal)
        return _in_lines(_console(self._screen, width), self._picture(rows))

    def _picture(self, rows: int | None = None, counts: bool = False) -> Picture:
        cost = self._health().overhead_seconds / max(time.monotonic() - self._began, 1e-9)
        told = self._incidents.active()
        return Picture(self._records(), told, rows, self._trend, cost, counts, self._run)

    def _records(self) -> list[StepRecord]:
        return [held[place] for held, place in self._newest.values()]

    def _last_words(self, screen: Terminal) -> str:
        """Below whatever line the program has left unfinished; whole, since it stays and scrolls."""
        shown = _joined(self._picture(counts=True), *self._stories())
        return "\n".join(["", *_in_lines(_console(screen, self._width), shown)])

    def _tell_status(self) -> None:
        if self._tells_status:
            for record in self._records():
                say(_status_line(record))

    def _stories(self) -> list[Incident | str]:
        incidents = self._incidents.all()
        shown = incidents[-self.STORIES :]
        number = len(incidents) + self._incidents.forgotten
        newest = [f"The last {len(shown)}:"] if len(shown) < number else []
        return [_summary(self._fired, number, len(self._incidents.active())), *newest, *shown]


def _terminal(owner: Console) -> Terminal | None:
    """What the program prints to, or its errors, where that is a terminal that can do more than lines."""
    from rich.console import Console as RichConsole

    for stream in (sys.stdout, sys.stderr):
        terminal = terminal_of(stream, owner)
        if terminal is not None:
            able = RichConsole(file=terminal.stream, force_terminal=True)
            if not able.is_dumb_terminal and not able.legacy_windows:
                return terminal
            terminal.leave(owner)
    return None


def _speaking(screen: Terminal) -> TextIO:
    """What the program writes to that terminal with, which may be a bar's own stream by now."""
    streams = (stream for stream in (sys.stdout, sys.stderr) if stream is not None)
    theirs = (s for s in streams if getattr(s, "rich_proxied_file", s) is screen.stream)
    return next(theirs, screen.stream)


def _console(screen: Terminal, width: int | None) -> RichConsole:
    """One of our own: a program changes rich's global one as it likes, and Lightning does."""
    from rich.console import Console as RichConsole

    return RichConsole(file=screen.stream, force_terminal=True, force_jupyter=False, width=width, emoji=False)


def _in_lines(console: RichConsole, shown: RenderableType) -> list[str]:
    with console.capture() as captured:
        console.print(shown)
    return captured.get().splitlines()


def _joined(*parts: Picture | Incident | str) -> RenderableType:
    """One below the other; what is no picture in words, never as markup."""
    from rich.console import Group

    return Group(*(part if isinstance(part, Picture) else Story(part) for part in parts))


def _status_line(record: StepRecord) -> str:
    whole = of_whole(record)
    modules = ", ".join(f"{name}: {number(of_line(record, name).after)}" for name in record.modules)
    unclipped = record.max_norm is None and record.norm_before == record.norm_after
    norms = (
        f"{number(whole.after)}, not clipped"
        if unclipped
        else f"{number(whole.before)} before, {number(whole.after)} after clipping"
    )
    return printable(f"{record.optimizer} step {record.step}: norm {norms}" + (f" ({modules})" if modules else ""))


def _summary(fired: int, incidents: int, lasting: int) -> str:
    if not fired:
        return "gradwatch: no alert fired."
    told = f"{_counted(fired, 'alert')} fired, in {_counted(incidents, 'incident')}"
    return f"gradwatch: {told}, {lasting} not over at the end."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
