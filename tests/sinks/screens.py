"""What a program leaves on the screen of a real terminal, as text."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

pyte = pytest.importorskip("pyte", reason='a terminal is missing: pip install "gradwatch[dev]"')

ROOT = Path(__file__).resolve().parents[2]


class Shown(NamedTuple):
    """A terminal when the program has ended.

    Attributes:
        status: what the program ended with.
        above: the lines that have been scrolled out at the top, oldest first.
        screen: the lines of the screen, from the top.
        bytes: all that the program has written.
        margins: the rows that scroll, None for all.
    """

    status: int
    above: list[str]
    screen: list[str]
    bytes: bytes
    margins: object

    @property
    def lines(self) -> list[str]:
        """All lines that can be scrolled back to."""
        return [*self.above, *self.screen]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run(
    program: str, columns: int, rows: int, /, *, environment: Mapping[str, str] | None = None, **streams: int
) -> Shown:
    """Run a program of Python in a terminal of its own.

    Args:
        program: the text of it.
        columns: of the terminal.
        rows: of the terminal.
        environment: more variables.
        streams: ``stdout`` or ``stderr``, where it is not the terminal.
    """
    screen = pyte.HistoryScreen(columns, rows, history=100_000, ratio=0.5)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=streams.get("stdout", theirs),
        stderr=streams.get("stderr", theirs),
        cwd=ROOT,
        env=_environment(environment or {}),
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    deadline = time.monotonic() + 300
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    some = os.read(ours, 65536)
                except OSError:  # nobody has the terminal open any more
                    break
                written += some
                stream.feed(some)
            elif process.poll() is not None:
                break
        status = process.wait(10)
    finally:
        process.kill()
        os.close(ours)
    above = ["".join(line[x].data for x in range(columns)).rstrip() for line in screen.history.top]
    return Shown(status, above, [line.rstrip() for line in screen.display], written, screen.margins)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    here = {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return {**kept, **here, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}
