"""``python -m tests.bench.calls``: calls of Python that tracking adds to a step. They can be counted on every machine.

The number is printed. It is the same in each process that is begun in this way; in another one, which has a deeper
stack and other handlers of its log, it may differ by some calls.
"""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import gradwatch
from gradwatch import shield
from gradwatch.reporting import Reporting
from tests.bench.isolated import Isolated, tiny_mlp
from tests.machine import one_thread

__all__ = ["RUNS", "STEPS", "WARM", "calls_added", "calls_of", "calls_of_a_tiny_step"]

STEPS, WARM, RUNS = 64, 256, 4
"""Whole blocks of records; longer than any window of the rules; and of these runs the one with the fewest calls."""


def calls_of_a_tiny_step() -> float:
    """`calls_added` to the step of a tiny MLP, in a process of its own."""
    return float(
        subprocess.run(
            [sys.executable, "-m", "tests.bench.calls"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    )


def calls_added(isolated: Isolated, *, after: int = WARM) -> float:
    """Calls of Python and of C functions that tracking adds to a step, when so many have been tracked.

    What is done once in a while, or after a time and not after a number of steps, is in some runs and not in others:
    the fewest calls are those of every step.
    """
    isolated.run(STEPS)
    bare = _fewest_calls(isolated)
    with gradwatch.track(isolated.optimizer, isolated.model):
        isolated.run(after)
        tracked = _fewest_calls(isolated)
    return (tracked - bare) / STEPS


def _fewest_calls(isolated: Isolated) -> int:
    return min(calls_of(lambda: isolated.run(STEPS)) for _ in range(RUNS))


def calls_of(run: Callable[[], object]) -> int:
    calls = 0

    def seen(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.collect()
    gc.disable()  # a collection calls what others have left to be called
    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


if __name__ == "__main__":
    # On a busy machine blocks would end by the clock, and each costs calls.
    Reporting.SECONDS = math.inf
    # A torch built for CUDA is asked at each wrapped call whether a graph is captured: 14 calls that others have not.
    shield._MAY_CAPTURE = False
    with one_thread():
        print(calls_added(Isolated(tiny_mlp())))
