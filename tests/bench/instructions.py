"""``python -m tests.bench.instructions``: processor instructions that tracking adds to a step, counted by callgrind.

Unlike a time, a count hardly depends on what else the machine does. The step is that of `Isolated` on a tiny MLP. It
runs in a child under valgrind, which counts nothing while torch is imported and while the rules get to know the run.
A run of N steps is subtracted from one of 3 N, and bare from tracked, so that what a run costs once is left out.
``--write`` renews ``instructions.json``, with the calls of `tests.bench.calls`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gradwatch
from gradwatch.reporting import Reporting
from tests.bench.calls import calls_of_a_tiny_step
from tests.bench.figures import write
from tests.bench.isolated import Isolated, tiny_mlp
from tests.machine import one_thread

__all__ = ["CannotCountError", "instructions_added"]

STEPS, WARM = 16, 256
"""A whole block of records, and longer than any window of the rules."""

MODULE = "tests.bench.instructions"
ROOT = Path(__file__).parents[2]


class CannotCountError(Exception):
    """This machine does not let valgrind count; the text says why."""


def instructions_added() -> float:
    """Instructions that tracking adds to one step; takes half a minute.

    Raises:
        CannotCountError: valgrind is not there, or does not run torch, or can't be told when to count.
    """
    for tool in ("valgrind", "vgdb"):
        if shutil.which(tool) is None:
            raise CannotCountError(f"there is no {tool}")
    with tempfile.TemporaryDirectory() as folder, _Counted(Path(folder)) as child:
        child.tell(f"run {STEPS}")
        bare = child.instructions_a_step()
        child.tell("track")
        child.tell(f"run {WARM}")
        return child.instructions_a_step() - bare


class _Counted:
    """This module as a child under callgrind, told line by line what to do; it answers each line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "log"

    def __enter__(self) -> _Counted:
        callgrind = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self._folder / 'out'}"]
        self._process = subprocess.Popen(
            ["valgrind", *callgrind, f"--log-file={self._log}", sys.executable, "-m", MODULE, "--child"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        self._wait()

    def instructions_a_step(self) -> float:
        self._valgrind("instrumentation", "on")
        once, thrice = self._count(STEPS), self._count(3 * STEPS)
        self._valgrind("instrumentation", "off")
        return (thrice - once) / (2 * STEPS)

    def _count(self, steps: int) -> int:
        self._valgrind("zero")
        self.tell(f"run {steps}")
        self._valgrind("dump")
        newest = max(self._folder.glob("out.*"), key=lambda path: path.stat().st_mtime_ns)
        totals = re.search(r"^totals: (\d+)$", newest.read_text(encoding="utf-8"), re.MULTILINE)
        assert totals is not None
        return int(totals[1])

    def _valgrind(self, *command: str) -> None:
        told = subprocess.run(["vgdb", f"--pid={self._process.pid}", *command], capture_output=True, text=True)
        if told.returncode:
            raise CannotCountError(f"vgdb can't say {' '.join(command)!r} to valgrind: {told.stderr.strip()}")

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "done\n":
            raise CannotCountError(
                f"torch does not run under valgrind: {self._log.read_text(encoding='utf-8')[-500:]}"
            )


def _child() -> None:
    """Does what it is told: ``run N`` steps, or ``track`` from now on."""
    # Under valgrind a step takes so long that blocks would end by the clock, sooner on a busy machine.
    Reporting.SECONDS = math.inf
    gc.disable()  # or a collection would be in one count and not in another, after whatever change of the code
    isolated = Isolated(tiny_mlp())
    watch = gradwatch.track(isolated.optimizer, isolated.model)
    print("done", flush=True)
    for line in sys.stdin:
        if line == "track\n":
            watch.__enter__()
        else:
            isolated.run(int(line.split()[1]))
        print("done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__, allow_abbrev=False)
    parser.add_argument("--write", action="store_true", help="keep the figures in instructions.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("gradwatch").addHandler(logging.NullHandler())
    with one_thread():
        _child() if options.child else _measure(options.write)


def _measure(write_down: bool) -> None:
    calls = calls_of_a_tiny_step()
    instructions = round(instructions_added())
    print(f"{instructions:,} instructions and {calls:g} calls added to a step")
    if write_down:
        tool = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        write(tool, instructions=instructions, calls=calls)


if __name__ == "__main__":
    main()
