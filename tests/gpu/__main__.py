"""``python -m tests.gpu``: everything that only a GPU can tell, in a few minutes, into one page and one file.

It exits with 0 where all that could run passed, with 1 where something failed, with 2 where there is no such device.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.gpu.agent import agent
from tests.gpu.busy import busy
from tests.gpu.environment import card, environment
from tests.gpu.exactness import exactness
from tests.gpu.pace import pace
from tests.gpu.report import markdown, write
from tests.gpu.stages import Found, Settings, Stage, carried_out
from tests.gpu.suite import suite
from tests.gpu.yardstick import yardstick

STAGES: dict[str, Stage] = {
    "environment": environment,
    "tests": suite,
    "exactness": exactness,
    "yardstick": yardstick,
    "device's work": busy,
    "agent's pace": pace,
    "agent": agent,
}


def main(arguments: list[str] | None = None, stages: dict[str, Stage] = STAGES) -> int:
    options = _parser().parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device here; --device cpu --quick tries the script itself.", file=sys.stderr)
        return 2
    with _quiet_log():
        found = run(torch.device(options.device), options.quick, options.out, stages)
    return 1 if any(stage.failures for stage in found.values()) else 0


def run(device: torch.device, quick: bool, out: Path, stages: dict[str, Stage]) -> dict[str, Found]:
    """Carry out all stages; what is known is written after each, so that a run cut short is not lost."""
    found: dict[str, Found] = {}
    for name, stage in stages.items():
        found[name] = carried_out(name, stage, Settings(device, quick), _say)
        page = markdown(card(device), found)
        write(out, page, card(device), found)
    _say(f"\n{page}\nwritten to {out}")
    return found


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Alerts of the loops that run here go to the log, too; what matters of them is in the tables."""
    log, silent = logging.getLogger("gradwatch"), logging.NullHandler()
    log.addHandler(silent)
    try:
        yield
    finally:
        log.removeHandler(silent)


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of gpu.md and gpu.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script itself")
    parser.add_argument("--quick", action="store_true", help="everything small")
    return parser


if __name__ == "__main__":
    sys.exit(main())
