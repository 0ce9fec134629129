"""Files as the JSONL sink writes them, of runs that nobody trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from gradwatch.records import Alert, Cause, GroupNorms, Health, RunInfo, StepRecord
from gradwatch.sinks import Jsonl
from tests.made_up import alert, record, run_info

BEGAN = 1_700_000_000.0

DEAD = Cause("dead-relu", "mlp", {"units": 64, "dead_units": 64}, "Lower the learning rate.")


def written(
    path: Path, records: Sequence[StepRecord], alerts: Sequence[Alert] = (), run: RunInfo | None = None
) -> Path:
    sink = Jsonl(path)
    sink.open(run or run_info(), Health)
    sink.write(records, alerts)
    sink.close()
    return path


def named(run: str, time: float = BEGAN) -> RunInfo:
    return dataclasses.replace(run_info(), run=run, time=time)


def eventful(path: Path, names: tuple[str, ...] = ("mlp",), steps: int = 300) -> Path:
    """A spike at step 100, NaN at 150 and 151, exactly 0 at the first of the lines from 200 on."""

    def norms(step: int) -> float:
        if step in (150, 151):
            return math.nan
        return 4e5 if step == 100 else 3.0 + math.sin(step)

    def one(step: int) -> StepRecord:
        before = norms(step)
        lines = {name: GroupNorms(before, min(before, 1.0)) for name in names}
        if step >= 200:
            lines[names[0]] = GroupNorms(0.0, 0.0)
        odd = {"nonfinite": (f"{names[0]}.w",), "skipped": True} if math.isnan(before) else {}
        return record(step, before, min(before, 1.0), modules=lines, **odd)

    alerts = [
        alert("firing", 150, rule="nonfinite", module=None, message="the gradient is NaN", time=BEGAN + 150),
        alert("resolved", 152, rule="nonfinite", module=None, message="it is finite again", time=BEGAN + 152),
        alert("firing", 200, module=names[0], time=BEGAN + 200),
        alert("explained", 200, module=names[0], cause=DEAD, time=BEGAN + 200),
    ]
    return written(path, [one(step) for step in range(1, steps + 1)], alerts, run_info(names))
