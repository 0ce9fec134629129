"""The last rows of a terminal, held for a panel while everything else goes on above it.

The terminal itself is told to scroll only the rows above (DECSTBM), and the cursor is put back to where it was
after each drawing, all in one write. A bar, a print or a log above needs to know nothing of it, and nothing of
theirs is redirected: whichever was there first, and also where another process writes to the terminal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TextIO

__all__ = ["Terminal", "terminal_of"]

# Draws a panel: width and rows at most -> lines.
Draw = Callable[[int, int], list[str]]

_SAVE, _RESTORE = "\x1b7", "\x1b8"
_ALL_ROWS_SCROLL = "\x1b[r"
_DOWN = "\x1bD"  # scrolls at the last row, and keeps the column


class Terminal:
    """One terminal, with a panel for each who wants one; the panels are below one another.

    Args:
        stream: a text file that writes to the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._panels: dict[Hashable, list[str]] = {}
        self._held = 0
        self._size = (0, 0)
        self._drawing = threading.Lock()

    def take_part(self, owner: Hashable) -> bool:
        """Begin a panel for somebody, who has to leave; whether the terminal was held before."""
        with self._drawing:
            was_held = bool(self._panels)
            self._panels[owner] = []
            return was_held

    def show(self, owner: Hashable, draw: Draw, width: int | None, rows: int | None) -> None:
        """Draw somebody's panel anew.

        Args:
            owner: whose.
            draw: gives the lines.
            width: cells at most; None for all.
            rows: at most; None for a half of the terminal, or its share of that.
        """
        with self._drawing:
            columns, lines = size = _size_of(self.stream)
            room = max(lines - 2, 1) if rows is not None else lines // 2
            mine = max(room // len(self._panels), 1)
            mine = mine if rows is None else min(rows, mine)
            self._panels[owner] = draw(columns if width is None else min(width, columns), mine)
            self._draw(size, [line for panel in self._panels.values() for line in panel][: lines - 1])

    def leave(self, owner: Hashable) -> None:
        """Take somebody's panel away; with the last one the terminal is as it was."""
        with self._drawing:
            if self._panels.pop(owner, None) is None or not self._held:
                return
            columns, lines = _size_of(self.stream)
            if self._panels:
                self._draw((columns, lines), [line for panel in self._panels.values() for line in panel])
                return
            rows = range(lines - self._held + 1, lines + 1)
            erased = "".join(f"\x1b[{row};1H\x1b[2K" for row in rows)
            _write(self.stream, f"{_SAVE}{_ALL_ROWS_SCROLL}{erased}{_RESTORE}")
            self._held, self._size = 0, (0, 0)

    def _draw(self, size: tuple[int, int], panel: list[str]) -> None:
        begin = ""
        if size != self._size:
            # Where the old panel is now is not known; what is above the cursor is not ours.
            begin = f"{_SAVE}{_ALL_ROWS_SCROLL}{_RESTORE}" + ("\x1b[J" if self._held else "")
            self._size, self._held = size, 0
        if len(panel) > self._held:
            more = len(panel) - self._held
            # What is above moves up where the cursor would else be below the new margin.
            begin += f"{_DOWN * more}\x1b[{more}A"
            self._held = len(panel)
        lines = size[1]
        # Said anew each time, for whoever has cleared the terminal or changed its size.
        begin += f"{_SAVE}\x1b[1;{lines - self._held}r"
        first = lines - self._held + 1
        filled = [*panel, *[""] * (self._held - len(panel))]
        drawn = "".join(f"\x1b[{first + place};1H\x1b[2K{line}" for place, line in enumerate(filled))
        _write(self.stream, f"{begin}{drawn}{_RESTORE}")


_held: dict[Hashable, Terminal] = {}
_finding = threading.Lock()


def terminal_of(stream: Any, owner: Hashable) -> Terminal | None:
    """The terminal that a stream writes to, which all share who have a panel on it; None where it is none."""
    # What rich puts in the place of a stream while a bar of its own is shown.
    stream = getattr(stream, "rich_proxied_file", stream)
    try:
        if not stream.isatty():
            return None
        which = os.fstat(stream.fileno()).st_rdev
        _size_of(stream)
    except (OSError, ValueError, AttributeError):
        return None
    with _finding:
        known = _held.get(which)
        if known is None or not known.take_part(owner):
            # Nobody holds it any more, and the stream of those who did may be closed.
            known = _held[which] = Terminal(stream)
            known.take_part(owner)
        return known


def _size_of(stream: TextIO) -> tuple[int, int]:
    size = os.get_terminal_size(stream.fileno())
    # Some report 0 where nobody has told them.
    return size.columns or 80, size.lines or 24


def _write(stream: TextIO, text: str) -> None:
    """In one piece and past every buffer: what others write comes before it or behind it."""
    data = text.encode(stream.encoding or "utf-8", "replace")
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if raw is None:
        stream.write(text)
        stream.flush()
        return
    while data:
        written = raw.write(data)
        if written is None:
            time.sleep(0.01)  # one that does not block takes no more for now
        data = data[written or 0 :]
