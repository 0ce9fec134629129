"""What a program leaves on the screen of a real terminal, as text."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

pyte = pytest.importorskip("pyte", reason='a terminal is missing: pip install "gradwatch[dev]"')

# What takes long to import is imported once; each program is a fork of that.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.sinks.preloaded"])


class Shown(NamedTuple):
    """A terminal when the program has ended.

    Attributes:
        status: what the program ended with.
        above: the lines that have been scrolled out at the top, oldest first.
        screen: the lines of the screen, from the top.
        margins: the rows that scroll, None for all.
        written: all that the program has written.
    """

    status: int | None
    above: list[str]
    screen: list[str]
    margins: object
    written: str

    @property
    def lines(self) -> list[str]:
        """All lines that can be scrolled back to."""
        return [*self.above, *self.screen]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run(
    program: str,
    columns: int,
    rows: int,
    variables: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    resized: tuple[int, int] | None = None,
) -> Shown:
    """Run a program of Python in a terminal of its own.

    Args:
        program: the text of it.
        columns: of the terminal.
        rows: of the terminal.
        variables: of the environment.
        encoding: that the program thinks its terminal has.
        resized: what the terminal becomes once the program has written ``RESIZE``.
    """
    screen = pyte.HistoryScreen(columns, rows, history=100_000, ratio=0.5)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    _resize(theirs, columns, rows)
    process = _SERVER.Process(
        target=_within, args=([os.ttyname(theirs)] * 2, program, dict(variables or {}), encoding)
    )
    process.start()
    written = b""
    for some in _until_the_end(ours, process):
        written += some
        stream.feed(some)
        if resized is not None and b"RESIZE" in written:
            screen.resize(resized[1], resized[0])
            _resize(theirs, *resized)
            columns, resized = resized[0], None
    process.join(10)
    os.close(theirs)
    os.close(ours)
    above = ["".join(line[x].data for x in range(columns)).rstrip() for line in screen.history.top]
    lines = [line.rstrip() for line in screen.display]
    return Shown(process.exitcode, above, lines, screen.margins, written.decode(encoding, "replace"))


def redirected(program: str, encoding: str = "utf-8") -> tuple[int | None, str, str]:
    """The same with no terminal: what it ended with, its output and its errors."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        for file in files:
            file.touch()
        process = _SERVER.Process(target=_within, args=([str(file) for file in files], program, {}, encoding))
        process.start()
        process.join(300)
        process.kill()
        out, err = (file.read_text(encoding, "replace") for file in files)
        return process.exitcode, out, err


def _until_the_end(file: int, process: Any) -> Any:
    deadline = time.monotonic() + 300
    ended = False
    while time.monotonic() < deadline:
        if select.select([file], [], [], 0.05)[0]:
            yield os.read(file, 65536)
        elif ended:
            return
        else:
            ended = not process.is_alive()
    process.kill()


def _resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _within(paths: list[str], program: str, variables: Mapping[str, str], encoding: str) -> None:
    """In the new process: everything of it goes to these files."""
    os.setsid()
    for descriptor, path in enumerate([paths[0], *paths]):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    terminal = os.isatty(1)
    sys.stdout = open(1, "w", encoding=encoding, closefd=False, buffering=1 if terminal else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)
    os.environ.update({"TERM": "xterm-256color", **variables})
    status = 0
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.exit(status)
