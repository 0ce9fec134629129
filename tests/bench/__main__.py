"""``python -m tests.bench``: what tracking adds to the training loops of real libraries; figures, and no verdict.

One torch thread. A full run takes some minutes; ``--only`` and ``--rounds`` make it shorter.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path

import torch

import gradwatch
from tests.bench.loops import LOOPS
from tests.bench.paired import Cost, Ratio, busy_share, cost_of
from tests.machine import one_thread

EACH, MEDIAN = 1.05, 1.03


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    # Alerts also go to the log; the table has their number.
    logging.getLogger("gradwatch").addHandler(logging.NullHandler())
    logging.getLogger("gradwatch").propagate = False
    costs = {}
    busy = busy_share()
    with one_thread():
        for name in options.only or LOOPS:
            costs[name] = cost_of(LOOPS[name], options.rounds)
            print(f"{name}: {_shown(costs[name].cpu)}", flush=True)
            if options.json:
                _write(options.json, costs)
    print(f"\n{table(costs)}\n\n{_machine(busy())}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", nargs="+", choices=LOOPS, metavar="NAME", help=f"of {', '.join(LOOPS)}")
    parser.add_argument(
        "--rounds", type=int, default=15, help="pairs of a bare and a tracked training, 15 by default"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures, to be read by a program")
    return parser


def _write(file: Path, costs: Mapping[str, Cost]) -> None:
    """All loops so far: a run that is stopped has not been in vain."""
    made = {"gradwatch": gradwatch.__version__, "torch": torch.__version__, "loops": costs}
    file.write_text(json.dumps(made, default=dataclasses.asdict, indent=1), encoding="utf-8")


def table(costs: Mapping[str, Cost]) -> str:
    """All figures in Markdown, with the targets beside them."""
    lines = [
        "| loop | CPU time tracked / bare (95 %) | target | wall time tracked / bare (95 %) | bare us a step | added us a step "
        "| steps | alerts | rounds |",
        "|" + "---|" * 9,
    ]
    for name, cost in costs.items():
        lines.append(
            f"| {name} | {_shown(cost.cpu)} | {_against(cost.cpu.median, EACH)} | {_shown(cost.wall)} | {cost.bare_us:.0f} "
            f"| {cost.added_us:.0f} | {cost.steps} | {cost.alerts} | {cost.rounds} |"
        )
    median = statistics.median(cost.cpu.median for cost in costs.values())
    wall = statistics.median(cost.wall.median for cost in costs.values())
    lines.append(f"| median of the loops | {median:.3f} | {_against(median, MEDIAN)} | {wall:.3f} | | | | | |")
    return "\n".join(lines)


def _shown(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} ({ratio.low:.3f} .. {ratio.high:.3f})"


def _against(ratio: float, target: float) -> str:
    return f"{target:.2f}: {'met' if ratio <= target else 'missed'}"


def _machine(busy: tuple[float, float] | None) -> str:
    load = "busy share unknown" if busy is None else f"machine busy {busy[0]:.0%}, stolen {busy[1]:.1%}"
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, one thread of {os.cpu_count()} cores, {load}; "
        "stolen above 1 % says to run again"
    )


if __name__ == "__main__":
    main()
