"""``python -m tests.healthy``: healthy trainings of real libraries, and what the default rules say of them.

It exits with 1 where anything critical is said, or where a training has not learned and so was not healthy.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tests.healthy.recipes import RECIPES
from tests.healthy.run import carried_out
from tests.healthy.table import show
from tests.healthy.warm_ups import WARM_UPS
from tests.healthy.workloads import VARIANTS, WORKLOADS


def main(arguments: list[str] | None = None) -> int:
    known = {workload.name: workload for workload in (*WORKLOADS, *VARIANTS, *RECIPES, *WARM_UPS)}
    parser = _parser(known)
    options = parser.parse_args(arguments)
    names = options.names or [workload.name for workload in options.chosen]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"there is no workload {unknown[0]!r}: choose of {', '.join(known)}")
    # Alerts also go to the log; they are in the table.
    logging.getLogger("gradwatch").addHandler(logging.NullHandler())
    console = Console(width=None if Console().is_terminal else 160)
    outcomes = []
    # An interrupt ends it early, and what is done is shown.
    with _bar(console) as bar, suppress(KeyboardInterrupt):
        for workload in map(known.__getitem__, names):
            for seed in options.seeds:
                outcomes.append(
                    carried_out(workload, seed, advance=_advance(bar, workload.name, seed, workload.steps))
                )
    show(outcomes, console)
    if len(outcomes) < len(names) * len(options.seeds):
        return 130
    return 1 if any(outcome.count("critical") or not outcome.has_learned for outcome in outcomes) else 0


def _parser(names: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.healthy", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; the first four by default"
    )
    parser.set_defaults(chosen=WORKLOADS)
    for name, chosen, what in (
        ("variants", VARIANTS, "those in other settings"),
        ("recipes", RECIPES, "usual recipes"),
        ("warm-ups", WARM_UPS, "a BERT in sixteen warm-ups"),
    ):
        parser.add_argument(
            f"--{name}", dest="chosen", action="store_const", const=chosen, help=f"{what}, in place of the four"
        )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="each workload once for each of these")
    return parser


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


def _advance(bar: Progress, name: str, seed: int, steps: int) -> Callable[[int], object]:
    """Moves a bar of its own; on no terminal there is a line where the training begins."""
    if bar.disable:
        bar.console.print(f"{name}, seed {seed}: {steps:,} steps", highlight=False)
    task = bar.add_task(f"{name}, seed {seed}", total=steps)
    return lambda made: bar.advance(task, made)


if __name__ == "__main__":
    sys.exit(main())
