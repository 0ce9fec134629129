"""What watching costs: each workload tracked, and read by the loop that people write, against bare."""

from __future__ import annotations

import gc
from dataclasses import asdict
from typing import Any

import torch

from tests.gpu.loop import Loop, held
from tests.gpu.stages import Found, Settings, Table
from tests.gpu.timing import Spread, Timed, alternate, differences, spread
from tests.gpu.watching import Told, ways
from tests.gpu.workloads import WORKLOADS

SECONDS, ROUNDS = 15.0, 9
QUICK_SECONDS, QUICK_ROUNDS = 0.5, 2
CLOCKS = ("device", "host")
COLUMNS = (
    "workload",
    "tensors",
    "parameters",
    "clock",
    "bare us",
    "tracked adds us",
    "quartiles",
    "%",
    "naive adds us",
    "quartiles",
    "%",
)


def yardstick(settings: Settings, found: Found) -> None:
    """One table for all workloads; one that breaks, such as for want of memory, leaves the others alone."""
    table = Table("What watching adds to a step", COLUMNS, [])
    found.tables.append(table)
    for name, make in WORKLOADS.items():
        try:
            torch.manual_seed(0)
            loop = make(settings.device, settings.quick)
            measured = measure(loop, settings)
        except Exception as error:
            found.failures.append(f"yardstick, {name}: {type(error).__name__}: {error}")
            continue
        found.data[name] = measured
        table.rows.extend((name, *row) for row in rows(measured))
        if measured["internal_errors"]:
            found.failures.append(f"yardstick, {name}: {measured['internal_errors']} errors inside gradwatch")
        del loop
        gc.collect()


def measure(loop: Loop, settings: Settings) -> dict[str, Any]:
    """All times of one workload, and what they come to."""
    told = Told()
    seconds, rounds = (QUICK_SECONDS, QUICK_ROUNDS) if settings.quick else (SECONDS, ROUNDS)
    timed = alternate(ways(loop, settings.quick, told), settings.device, seconds, rounds)
    parameters = [parameter for optimizer in loop.optimizers.values() for parameter in held(optimizer)]
    return {
        "tensors": len(parameters),
        "elements": sum(parameter.numel() for parameter in parameters),
        "internal_errors": told.internal_errors,
        "alerts": sorted(told.alerts),
        "clocks": {clock: summary(timed, clock) for clock in CLOCKS},
        "timed": {way: [asdict(one) for one in times] for way, times in timed.items()},
    }


def summary(timed: dict[str, list[Timed]], clock: str) -> dict[str, Any]:
    """Microseconds a step by one clock: bare, and what each way has added in the same round."""
    by = {way: [getattr(one, clock) * 1e6 for one in times] for way, times in timed.items()}
    told: dict[str, Any] = {"bare": asdict(spread(by["bare"]))}
    for way in ("tracked", "naive"):
        added = spread(differences(by[way], by["bare"]))
        told[way] = {**asdict(added), "percent": 100 * added.median / told["bare"]["median"]}
    return told


def rows(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of the table for one workload."""
    return [
        (
            str(measured["tensors"]),
            f"{measured['elements']:,}",
            clock,
            f"{told['bare']['median']:.0f}",
            *_added(told["tracked"]),
            *_added(told["naive"]),
        )
        for clock, told in measured["clocks"].items()
    ]


def _added(told: dict[str, float]) -> tuple[str, ...]:
    added = Spread(told["low"], told["median"], told["high"])
    return f"{added.median:.1f}", f"{added.low:.1f} to {added.high:.1f}", f"{told['percent']:.2f}"
