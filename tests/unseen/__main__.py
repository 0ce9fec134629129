"""``python -m tests.unseen open|held``: loops that were written from the list of rules and causes alone.

Each program has ``train(track, steps)``, ``STEPS`` and ``EXPECTED``, which is None where all is well, and else what an
expert would say: ``rules`` that may tell of it, ``module`` and ``causes`` (None: not judged), the step ``at`` which it
begins, ``say``; ``patience`` is the steps within which it is to be told. What an expert could dispute has a ``doubt``.
Every program runs in a fork of its own, for a minute at most.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gradwatch
from gradwatch.records import Alert
from tests.machine import one_thread

PATIENCE, SECONDS = 25, 60

# What is not told as an expert would, and why; the command fails where anything else is, or one of these is mended.
MISSED = {
    "f_sac_actor_leaks_into_critic": "all backward passes come before all steps, where leaked cannot decide",
    "h_unfreezing_held_by_the_optimizer": "a warning on layers that are frozen for a while, as the rule has it",
}


class Outcome(NamedTuple):
    """What became of one program: whether each part is right, None where it is not judged."""

    name: str
    is_fault: bool
    told: bool | None = None
    module: bool | None = None
    cause: bool | None = None
    alarms: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_right(self) -> bool:
        """Nothing is missed, and nothing told of a healthy loop."""
        told = self.told and self.module is not False and self.cause is not False
        return not self.error and bool(told if self.is_fault else not self.alarms)


def run(path: Path) -> Outcome:
    """One program, in this process."""
    warnings.simplefilter("ignore")
    logging.disable()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    watches: list[gradwatch.Watch] = []

    @contextlib.contextmanager
    def track(*args: Any, **kwargs: Any) -> Iterator[gradwatch.Watch]:
        with gradwatch.track(*args, **kwargs) as watch:
            watches.append(watch)
            yield watch

    with one_thread():
        program.train(track, program.STEPS)
    alerts = [alert for watch in watches for alert in watch.alerts if alert.state != "resolved"]
    return judged(path.stem, program.EXPECTED, alerts)


def judged(name: str, expected: dict[str, Any] | None, alerts: list[Alert]) -> Outcome:
    """What was said, held against what an expert would say."""
    told = tuple(sorted({f"{a.severity} {a.title}" for a in alerts}))
    if expected is None:
        return Outcome(name, False, alarms=told)
    since = expected["at"]
    right = [a for a in alerts if a.rule in expected["rules"] and a.step >= since]
    if expected.get("optimizer") is not None:
        right = [a for a in right if a.optimizer == expected["optimizer"]]
    in_time = [a for a in right if a.step <= since + expected.get("patience", PATIENCE)]
    modules = expected["module"]
    there = in_time if modules is None else [a for a in in_time if a.module in modules]
    # A cause may be told later than its alert.
    places = {a.module for a in there or in_time}
    kinds = {a.cause and a.cause.kind for a in right if in_time and a.module in places}
    causes = expected["causes"]
    return Outcome(
        name,
        True,
        told=bool(in_time),
        module=None if modules is None else bool(there),
        cause=None if causes is None else bool(kinds & set(causes)),
        alarms=told,
    )


def forked(path: Path) -> Outcome:
    """One program, in a process that has imported torch and nothing else."""
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)

    def child() -> None:
        try:
            there.send(run(path))
        except Exception as error:
            there.send(Outcome(path.stem, path.stem.startswith("f_"), error=repr(error)))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    outcome = here.recv() if here.poll(SECONDS) else None
    process.kill()
    process.join()
    return outcome or Outcome(path.stem, path.stem.startswith("f_"), error="it took too long")


def _row(one: Outcome) -> str:
    marks = [{True: "yes", False: "NO", None: "-"}[part] for part in (one.told, one.module, one.cause)]
    if not one.is_fault:
        marks = ["ALARM" if one.alarms else "silent", "", ""]
    return f"{one.name:44} {marks[0]:7}{marks[1]:7}{marks[2]:7}{one.error or '; '.join(one.alarms[:3])}"


def _share(parts: list[bool | None]) -> str:
    known = [part for part in parts if part is not None]
    return f"{sum(known)} of {len(known)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.unseen", description=__doc__, allow_abbrev=False)
    parser.add_argument("half", choices=["open", "held"])
    half = parser.parse_args().half
    torch.set_num_threads(1)
    outcomes = []
    print(f"{'program':44} {'told':7}{'module':7}{'cause':7}said")
    for path in sorted((Path(__file__).parent / half).glob("*.py")):
        outcomes.append(forked(path))
        print(_row(outcomes[-1]), flush=True)
    faults = [one for one in outcomes if one.is_fault]
    healthy = [one for one in outcomes if not one.is_fault]
    critical = sum(any(alarm.startswith("critical") for alarm in one.alarms) for one in healthy)
    print(
        f"\nfaults told {_share([one.told for one in faults])}, module {_share([one.module for one in faults])}, "
        f"cause {_share([one.cause for one in faults])}; of {len(healthy)} healthy loops {critical} with a critical "
        f"alert, {sum(bool(one.alarms) for one in healthy)} with any"
    )
    wrong = {one.name for one in outcomes if not one.is_right}
    known = {one.name for one in outcomes} & MISSED.keys()
    for name in sorted(wrong ^ known):
        print(f"{name} is {'missed' if name in wrong else 'told by now: take it off MISSED'}")
    return int(wrong != known)


if __name__ == "__main__":
    sys.exit(main())
