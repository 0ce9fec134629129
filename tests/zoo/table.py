"""The outcome of all loops as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from tests.zoo.judged import Found, Outcome

__all__ = ["show"]


def show(faults: Sequence[Outcome], healthy: Sequence[Outcome]) -> int:
    """Print it; 1 where anything is wrong, 0 else."""
    console = Console(width=150)
    if faults:
        console.print(_of_faults(faults))
    if healthy:
        console.print(_of_healthy(healthy))
    complaints = [(outcome.name, each) for outcome in (*faults, *healthy) for each in outcome.complaints]
    for name, each in complaints:
        console.print(f"[red]{name}[/]: ", end="")
        console.print(each, markup=False, highlight=False)
    for line in _figures(faults, healthy):
        console.print(line, highlight=False)
    return 1 if complaints else 0


def _of_faults(faults: Sequence[Outcome]) -> Table:
    table = Table(title="planted faults", title_justify="left")
    for heading in ("fault", "rule", "on", "found", "delay", "cause", "found", "at"):
        table.add_column(heading, no_wrap=heading not in ("at", "fault"))
    for outcome in faults:
        name = outcome.name if not (outcome.broken or outcome.alarms) else f"[red]{outcome.name}[/]"
        for found in outcome.found or ():
            table.add_row(name, *_row(found))
            name = ""
        if not outcome.found:
            table.add_row(name, "", "", _mark(False), "", "", "", "")
    return table


def _row(found: Found) -> list[str]:
    verdict = found.verdict
    on = verdict.optimizer if verdict.module is None else verdict.module
    delay = "" if found.delay is None else str(found.delay)
    row = [verdict.rule, on, _mark(not found.symptom), delay]
    if verdict.cause is None:
        return [*row, "", "", ""]
    return [*row, verdict.cause, _mark(_right(found)), "" if found.cause is None else found.cause.where]


def _of_healthy(healthy: Sequence[Outcome]) -> Table:
    table = Table(title="healthy loops", title_justify="left")
    for heading in ("loop", "silent", "alerts"):
        table.add_column(heading)
    for outcome in healthy:
        alerts = ", ".join(f"{a.severity} {a.rule} at step {a.step}" for a in outcome.alerts)
        table.add_row(outcome.name, _mark(not outcome.complaints), alerts)
    return table


def _figures(faults: Sequence[Outcome], healthy: Sequence[Outcome]) -> Iterable[str]:
    found = [found for outcome in faults for found in outcome.found]
    missed = sum(not outcome.found for outcome in faults)
    symptoms = sum(not each.symptom for each in found)
    asked = [each for each in found if each.verdict.cause is not None]
    alarms = sum(len(outcome.alarms) for outcome in (*faults, *healthy))
    yield f"symptom recall  {_share(symptoms, len(found) + missed)}  over {len(faults)} faults"
    yield f"cause accuracy  {_share(sum(map(_right, asked)), len(asked))}"
    yield f"false alarms    {alarms}  over {len(healthy)} healthy loops and beside the faults"


def _right(found: Found) -> bool:
    return found.delay is not None and not found.wrong


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole}" + (f" = {100 * part / whole:.1f} %" if whole else "")


def _mark(good: bool) -> str:
    return "[green]yes[/]" if good else "[red]no[/]"
