"""What a Prometheus server is shown: counts and newest values, as plain state that a scrape reads.

A scrape builds its samples from this state; a step only sets numbers. That keeps a step cheap however many
series there are.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np

from gradwatch.blocks import FloatArray, Steps
from gradwatch.monitoring.metrics import MOST_MODULES
from gradwatch.records import GroupNorms, RunInfo, StepRecord
from gradwatch.sinks.curves import Curves

__all__ = ["BOUNDS", "Newest", "OptimizerState", "WindowMax", "new_states"]

# Half decades from 1e-8 to 1e6.
BOUNDS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-16, 13))
_BOUNDS = np.array(BOUNDS)


class WindowMax:
    """The largest value of the last minute, in six slots of ten seconds.

    It is never reset by a scrape: a second server would miss what the first one took.
    """

    SLOT_SECONDS = 10
    SLOTS = 6

    def __init__(self) -> None:
        self._largest = [math.nan] * self.SLOTS
        self._slot_of = [-1] * self.SLOTS

    def add(self, values: FloatArray, times: FloatArray) -> None:
        """Take in finite values at Unix times in seconds."""
        slots = (times // self.SLOT_SECONDS).astype(np.int64)
        for slot in sorted({*slots.tolist()}):
            largest, place = float(values[slots == slot].max()), slot % self.SLOTS
            if self._slot_of[place] == slot:
                largest = max(largest, self._largest[place])
            self._slot_of[place], self._largest[place] = slot, largest

    def at(self, time: float) -> float:
        """The largest value of the minute before this Unix time, NaN where there is none."""
        oldest = int(time // self.SLOT_SECONDS) - self.SLOTS
        recent = [v for v, slot in zip(self._largest, self._slot_of, strict=True) if slot > oldest]
        return max(recent, default=math.nan)


class Newest(NamedTuple):
    """The numbers of the newest step, as in its record."""

    norm_before: float
    norm_after: float
    clip_ratio: float
    max_norm: float | None
    modules: Mapping[str, GroupNorms]


class OptimizerState:
    """Everything shown of one optimizer; counts begin at 0 so that a first event is an increase.

    Args:
        modules: those that have series of their own.
        began: Unix time in seconds at which tracking began.
    """

    def __init__(self, modules: tuple[str, ...], began: float) -> None:
        self.modules = modules
        self.last_step_time = began
        self.steps = self.clipped = self.skipped = self.nonfinite = 0
        self._shown: Curves | None = None
        self.window = WindowMax()
        self.buckets = np.zeros(len(BOUNDS) + 1, dtype=np.int64)
        self.finite_sum = 0.0
        self.module_nonfinite: Counter[str] = Counter()

    @property
    def newest(self) -> Newest | None:
        """What the newest step was like; None before the first."""
        if self._shown is None:
            return None
        shown = self._shown
        before, after, ratio, *of_modules = shown.norms[-1].tolist()
        pairs = map(GroupNorms, of_modules[::2], of_modules[1::2])
        return Newest(before, after, ratio, shown.limits[-1], dict(zip(shown.modules, pairs, strict=True)))

    def take(self, shown: Curves, steps: Steps) -> None:
        """Count what is shown of some steps, and keep the newest."""
        self._shown = shown
        self.last_step_time = shown.times[-1]
        self.steps += len(shown.steps)
        self.clipped += sum(shown.clipped)
        self.skipped += sum(shown.skipped)
        self._take_norms(shown.norms[:, 0], np.array(shown.times))
        if any(shown.nonfinite):
            self._take_nonfinite([steps[at] for at in compress(shown.at, shown.nonfinite)])

    def _take_norms(self, norms: FloatArray, times: FloatArray) -> None:
        # Finite norms only, and a finite sum: NaN or Inf would stay in it for ever.
        finite = np.isfinite(norms)
        norms, times = norms[finite], times[finite]
        self.window.add(norms, times)
        self.buckets += np.bincount(_BOUNDS.searchsorted(norms), minlength=len(self.buckets))
        # Added up by Python, which does not warn where it is infinite.
        self.finite_sum = min(self.finite_sum + sum(norms.tolist()), sys.float_info.max)

    def _take_nonfinite(self, records: Sequence[StepRecord]) -> None:
        self.nonfinite += len(records)
        for record in records:
            self.module_nonfinite.update(name for name in self.modules if _not_finite(record, name))


def new_states(run: RunInfo) -> tuple[Mapping[str, OptimizerState], int]:
    """A state for each optimizer, and the number of modules left without series of their own."""
    room, left_out = MOST_MODULES, 0
    states = {}
    for optimizer in run.optimizers:
        modules = run.modules.get(optimizer, ())
        shown = tuple(modules[:room])
        room -= len(shown)
        left_out += len(modules) - len(shown)
        states[optimizer] = OptimizerState(shown, run.time)
    return states, left_out


def _not_finite(record: StepRecord, module: str) -> bool:
    if module not in record.modules or module in record.missing_modules:
        return False
    norms = record.modules[module]
    # A step that was skipped consumed nothing: its norm after is NaN for every module, and says nothing.
    return not math.isfinite(norms.norm_before) or not (record.skipped or math.isfinite(norms.norm_after))
