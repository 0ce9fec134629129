"""What a Prometheus server is shown: counts and newest values, as plain state that a scrape reads.

A scrape builds its samples from this state; a step only sets numbers. That keeps a step cheap however many
series there are.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np

from gradwatch.blocks import Alike, FloatArray
from gradwatch.monitoring.metrics import MOST_MODULES, MOST_NAMED
from gradwatch.records import Alert, GroupNorms, RunInfo, StepRecord
from gradwatch.sinks.curves import Curves

__all__ = ["BOUNDS", "OTHER", "Newest", "OptimizerState", "WindowMax", "new_states"]

# Half decades from 1e-8 to 1e6.
BOUNDS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-16, 13))

# The label of every module beyond those that are named.
OTHER = "(other)"


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
        alerts: rule and severity of each alert that may be raised: a counter first seen at 1 has had no increase.
    """

    # As long as the rule that relays an alert fires for, however short it was.
    WORDS_LAST_SECONDS = 300

    def __init__(self, modules: tuple[str, ...], began: float, alerts: Sequence[tuple[str, str]] = ()) -> None:
        self.modules = modules
        self.last_step_time = began
        self.steps = self.clipped = self.skipped = self.nonfinite = 0
        self._shown: Curves | None = None
        self.window = WindowMax()
        self.buckets = np.zeros(len(BOUNDS) + 1, dtype=np.int64)
        self.finite_sum = 0.0
        self.module_nonfinite: Counter[str] = Counter()
        self.fired: Counter[tuple[str, str]] = Counter(dict.fromkeys(alerts, 0))
        self._named: set[str] = set()
        self._words: dict[tuple[str, str, str], tuple[str, float]] = {}
        # By module, in words: modules that have no series of their own share one.
        self._firing: dict[tuple[str, str, str], dict[str | None, str]] = {(*key, ""): {} for key in alerts}

    @property
    def newest(self) -> Newest | None:
        """What the newest step was like; None before the first."""
        if self._shown is None:
            return None
        shown = self._shown
        before, after, ratio, *of_modules = shown.norms[-1].tolist()
        pairs = map(GroupNorms, of_modules[::2], of_modules[1::2])
        return Newest(before, after, ratio, shown.limits[-1], dict(zip(shown.modules, pairs, strict=True)))

    def take(self, shown: Curves, alike: Alike) -> None:
        """Count steps, and keep the newest."""
        self._shown = shown
        self.last_step_time = shown.times[-1]
        self.steps += len(shown.steps)
        self.clipped += sum(shown.clipped)
        self.skipped += sum(shown.skipped)
        self._take_norms(shown.norms[:, 0], np.array(shown.times))
        if any(shown.nonfinite):
            self._take_nonfinite(list(compress(alike.places, shown.nonfinite)), alike.records)

    def take_alert(self, alert: Alert) -> None:
        """Count an alert that fires, and keep its newest words for a while."""
        key = alert.rule, alert.severity, self._label_of(alert.module)
        firing, words = self._firing.setdefault(key, {}), str(alert)
        if alert.state == "firing":
            self.fired[alert.rule, alert.severity] += 1
            firing[alert.module] = words
        elif alert.state == "resolved":
            firing.pop(alert.module, None)
        elif alert.module in firing:
            firing[alert.module] = words
        if firing:
            # What is over must not be said of a series in which another module still fires.
            self._words[key] = next(reversed(firing.values())), math.inf
        else:
            self._words[key] = words, self.last_step_time + self.WORDS_LAST_SECONDS

    def active(self) -> Iterator[tuple[tuple[str, str, str], float]]:
        """(rule, severity, module) and 1.0 while the alert fires, 0.0 before and after."""
        for key, firing in self._firing.items():
            yield key, float(bool(firing))

    def words(self, now: float) -> Iterator[tuple[str, str, str, str]]:
        """(rule, severity, module, words) of each alert that fires, or did so shortly before this Unix time."""
        for key, (words, until) in self._words.items():
            if now < until:
                yield *key, words

    def _take_norms(self, norms: FloatArray, times: FloatArray) -> None:
        # Finite norms only, and a finite sum: NaN or Inf would stay in it for ever.
        finite = np.isfinite(norms)
        norms, times = norms[finite], times[finite]
        self.window.add(norms, times)
        self.buckets += np.bincount(np.searchsorted(BOUNDS, norms), minlength=len(self.buckets))
        with np.errstate(over="ignore"):
            self.finite_sum = min(self.finite_sum + float(norms.sum()), sys.float_info.max)

    def _take_nonfinite(self, places: Sequence[int], records: Sequence[StepRecord]) -> None:
        self.nonfinite += len(places)
        for place in places:
            record = records[place]
            self.module_nonfinite.update(name for name in self.modules if _not_finite(record, name))

    def _label_of(self, module: str | None) -> str:
        """What a verdict names, which may lie beneath the lines of the report; bounded, as paths are not."""
        if module is None or module in self.modules or module in self._named:
            return module or ""
        if len(self._named) == MOST_NAMED:
            return OTHER
        self._named.add(module)
        return module


def new_states(run: RunInfo) -> tuple[Mapping[str, OptimizerState], int]:
    """A state for each optimizer, and the number of modules left without series of their own."""
    room, left_out = MOST_MODULES, 0
    alerts = [(rule, severity) for rule, severities in run.rules.items() for severity in severities]
    states = {}
    for optimizer in run.optimizers:
        modules = run.modules.get(optimizer, ())
        shown = tuple(modules[:room])
        room -= len(shown)
        left_out += len(modules) - len(shown)
        states[optimizer] = OptimizerState(shown, run.time, alerts)
    return states, left_out


def _not_finite(record: StepRecord, module: str) -> bool:
    if module not in record.modules or module in record.missing_modules:
        return False
    norms = record.modules[module]
    # A step that was skipped consumed nothing: its norm after is NaN for every module, and says nothing.
    return not math.isfinite(norms.norm_before) or not (record.skipped or math.isfinite(norms.norm_after))
