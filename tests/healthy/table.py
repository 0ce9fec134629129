"""What came of all trainings, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.healthy.run import Outcome

__all__ = ["show"]


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """A line for each training and one for each alert."""
    console.print(_of_trainings(outcomes))
    if any(outcome.episodes for outcome in outcomes):
        console.print(_of_alerts(outcomes))
    steps = sum(sum(outcome.steps.values()) for outcome in outcomes)
    console.print(
        f"optimizer steps: {steps:,}, critical alerts: {sum(o.count('critical') for o in outcomes)}, "
        f"warnings: {sum(o.count('warning') for o in outcomes)}",
        highlight=False,
    )


def _of_trainings(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="healthy trainings", title_justify="left")
    for heading in (
        "workload",
        "seed",
        "steps",
        "reached",
        "at first",
        "at last",
        "learned",
        "critical",
        "warnings",
    ):
        table.add_column(heading)
    for outcome in outcomes:
        steps = ", ".join(f"{name} {made:,}" for name, made in outcome.steps.items())
        reached = (f"mean {outcome.workload.goal}", f"{outcome.first:.4g}", f"{outcome.last:.4g}")
        learned = "yes" if outcome.has_learned else "[red]NO[/]"
        counts = (str(outcome.count(severity)) for severity in ("critical", "warning"))
        table.add_row(outcome.workload.name, str(outcome.seed), steps, *reached, learned, *counts)
    return table


def _of_alerts(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="alerts", title_justify="left")
    for heading in ("workload", "seed", "severity", "rule", "module", "step", "over", "message"):
        table.add_column(heading, no_wrap=heading != "message", overflow="fold")
    for outcome in outcomes:
        for alert, over in outcome.episodes:
            where = alert.optimizer if alert.module is None else f"{alert.optimizer}/{alert.module}"
            steps = (str(alert.step), "no" if over is None else str(over))
            run = (outcome.workload.name, str(outcome.seed))
            table.add_row(*run, alert.severity, alert.rule, where, *steps, alert.message)
    return table
