"""The rule on a gradient that is far above what it was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median_low
from typing import Any

from gradwatch.blocks import BEFORE, Block, StepRow
from gradwatch.judge.baseline import Baseline
from gradwatch.judge.not_taken import not_taken
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.judge.wording import times
from gradwatch.records import Severity, StepRecord
from gradwatch.shapes import COUNT, FLAG, LOGARITHM, NORM, Fields, Listed, Maybe, Named, That

__all__ = ["Explosion"]


class Explosion:
    """The norm before clipping stands far above its own baseline, or above an absolute limit.

    The baseline is the median of the optimizer's norms so far; it takes no value in while the rule fires, so
    that an explosion does not become the new normal. Where norms vary widely by themselves, five standard
    deviations of their logarithm, estimated from the MAD, must be exceeded too. The level must be reached by a
    jump: a norm that has climbed to it step by step, as when training leaves a plateau, is found only at
    ``sudden_factor`` times the baseline. The rule ``growth`` is about climbing.

    The baseline looks back on 200 steps. A norm that comes back to where this run has held it before, as an
    agent's does with each new batch of experience, is a warning: training has survived it. A single step is one,
    too, where clipping has left no more of it than the rule allows a norm to be: nothing too large was consumed.
    Where it stays so for ``fires_after`` steps, clipping hides an explosion. A single step is a warning as well
    where it is at most three times as high as one that passed by itself before, as in an agent that seldom fails.

    When the warm-up is over, a jump is looked for in it, as the first update makes it at far too high a rate. What
    came after it is no baseline. What came before is less than one: healthy runs may begin as low by accident. So
    it is a warning, and critical where it goes on for as many steps more.

    A step that was skipped has done no harm: that is a warning, until too many in a row were, or unless a guard
    has ended the loop there.

    Args:
        factor: times the baseline, and times the level held in the last ``warm_up`` steps, in ``fires_after``
            steps running.
        sudden_factor: times the baseline, from which it need be no jump; and from which a single step is enough
            that is ``factor`` times each of the last ``warm_up``.
        limit: an absolute norm that is too much at any time.
        warm_up: norms seen before the baseline counts; and steps running after which a jump in them is critical.
        fires_after: steps running above ``factor`` before the alert.
        clears_after: steps running below it before the episode is over.
    """

    id = "explosion"
    severity: Severity = "critical"
    severities: tuple[Severity, ...] = ("critical", "warning")
    may_be_shortcut = True
    _SIGMAS = 5.0
    # Times what this run has held, or has survived, up to which a norm is like it: half of ``factor``, in decades.
    _BACK = 3.0
    # Skipped steps running after which training stands still.
    _TOO_MANY = 10

    @checked
    def __init__(
        self,
        *,
        factor: float = 10.0,
        sudden_factor: float = 100.0,
        limit: float = 1e8,
        warm_up: int = 20,
        fires_after: int = 3,
        clears_after: int = 20,
    ) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._factor = factor
        self._sudden_factor = sudden_factor
        self._limit = limit
        self._warm_up = warm_up
        self._runs: dict[str, _Run] = {}
        # By optimizer, the step at which a guard has raised last.
        self._refused: dict[str, int] = {}

    def was_refused(self, optimizer: str, step: int) -> None:
        """A guard has raised an error in the place of this step."""
        self._refused[optimizer] = step

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where the norm before clipping is too large; a norm of NaN or Inf tells nothing."""
        if not math.isfinite(record.norm_before):
            return None
        finding = self._find(record.optimizer, record.norm_before, record.norm_after, record)
        return [] if finding is None else [finding]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first norm that is too large."""
        if self._all_are_usual(block, start):
            return len(block), ()
        before, after = block.wholes
        for index in range(start, len(block)):
            norm, row = before[index], block.rows[index]
            finding = self._find(block.layout.optimizer, norm, after[index], row) if math.isfinite(norm) else None
            if finding is not None:
                return index, [finding]
        return len(block), ()

    def _all_are_usual(self, block: Block, start: int) -> bool:
        """Take them in, where none of them can be found too large, whatever the others make of the baseline."""
        logarithms = (block.logarithms or ())[start:]
        if not logarithms or max(block.wholes[BEFORE][start:]) > self._limit:
            return False
        run = self._run_of(block.layout.optimizer)
        if run.is_warm:
            # Clearly, so that it is not for the last digit of a logarithm to decide.
            least = max(logarithms) - math.log(self._factor) + 1e-9
            if not run.baseline.stays_at_least(least, len(logarithms)):
                return False
        elif len(run.baseline) + len(logarithms) >= self._warm_up:
            return False
        # Where one before them was too large, its episode is open, and steps are looked at one by one.
        run.baseline.add_all(logarithms)
        return True

    def critical_above(self, optimizer: str) -> float:
        """The norm before clipping above which a step that is not clipped is critical; Inf where none is.

        So is a step that is only a warning because another like it passed by itself: a guard leaves out both.
        """
        run = self._runs.get(optimizer)
        return self._limit if run is None else self._critical_above(run, run.in_a_row + 1)

    def _critical_above(self, run: _Run, in_a_row: int) -> float:
        if not run.is_warm or self._may_be_accident(run, in_a_row):
            return self._limit
        return min(self._limit, max(self._too_much(run.baseline), self._BACK * run.baseline.height()))

    remembers = Named(
        That(
            Fields(
                recent=Listed(LOGARITHM),
                height=Maybe(LOGARITHM),
                warm=FLAG,
                in_a_row=COUNT,
                skipped=COUNT,
                peak=NORM,
                survived=NORM,
            ),
            lambda run: run["recent"] or not run["warm"],
            "one with norms where its warm-up is over",
        )
    )

    def state_dict(self) -> dict[str, Any]:
        """The baselines by optimizer, whether their warm-up is over, and what was too large."""
        return {name: run.state_dict() for name, run in self._runs.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._runs = {}
        for optimizer, saved in state.items():
            self._runs[optimizer] = _Run()
            self._runs[optimizer].load_state_dict(saved)

    def _find(self, optimizer: str, norm: float, after: float, step: StepRecord | StepRow) -> Finding | None:
        """What is wrong with a finite norm before clipping; one with which nothing is goes into the baseline."""
        run = self._run_of(optimizer)
        found = self._judged(optimizer, run, norm, math.nan if step.skipped else after)
        run.skipped = run.skipped + 1 if step.skipped and found is not None else 0
        if found is None or not step.skipped:
            return found
        refused = self._refused.get(optimizer) == step.step
        message, severity = not_taken(found.message, step, run.skipped, self._TOO_MANY, refused)
        return replace(found, message=message, severity=severity, at_once=True)

    def _judged(self, optimizer: str, run: _Run, norm: float, consumed: float) -> Finding | None:
        baseline = run.baseline
        if norm > self._limit:
            run.in_a_row += 1
            above = self._critical_above(run, run.in_a_row)
            how = (
                f"above the rule's own bound of {above:.3g}" if above == self._limit else self._compared(run, norm)
            )
            return Finding(None, norm, above, f"norm before clipping {norm:.3g}, {how}", at_once=True)
        if run.is_warm and norm > self._factor * baseline.median() and norm > self._too_much(baseline):
            run.in_a_row += 1
            found = self._finding(norm, consumed, run)
            # That training lives on proves nothing of a step that it did not take.
            run.peak = run.peak if math.isnan(consumed) else max(run.peak, norm)
            return found
        run.came_back()
        baseline.add(norm)
        if not run.is_warm and len(baseline) >= self._warm_up:
            run.is_warm = True
            return self._exploded_at_the_start(optimizer, norm, baseline)
        return None

    def _run_of(self, optimizer: str) -> _Run:
        run = self._runs.get(optimizer)
        if run is None:
            run = self._runs[optimizer] = _Run()
        return run

    def _too_much(self, baseline: Baseline) -> float:
        usual = baseline.median()
        # Reached step by step, it is so only from here on.
        jump = min(self._factor * baseline.held_lately(self._warm_up), self._sudden_factor * usual)
        wide: float = usual * baseline.spread() ** self._SIGMAS
        return max(self._factor * usual, wide, jump)

    def _may_be_accident(self, run: _Run, in_a_row: int) -> bool:
        """Whether too few norms are known to be critical of so many running that are far above them."""
        return len(run.baseline) < self._warm_up and in_a_row < self._warm_up

    def _finding(self, norm: float, consumed: float, run: _Run) -> Finding:
        baseline = run.baseline
        usual, before = baseline.median(), baseline.height()
        message = f"norm before clipping {norm:.3g}, {self._compared(run, norm)}"
        severity: Severity = "critical"
        if self._may_be_accident(run, run.in_a_row):
            severity = "warning"
        elif norm <= self._BACK * before:
            message += f". Earlier in this run it was at {before:.3g}"
            severity = "warning"
        elif consumed <= self._factor * usual and run.in_a_row < self.fires_after:
            message += f". Clipping has left a norm of {consumed:.3g}"
            severity = "warning"
        elif norm <= self._BACK * run.survived and run.in_a_row < self.fires_after:
            message += f". It was at {run.survived:.3g} before, and came back by itself"
            severity = "warning"
        # Where single steps have come close to it of late, this one proves nothing by itself.
        is_jump = norm > self._factor * baseline.seen_lately(self._warm_up)
        sudden = is_jump and norm > self._sudden_factor * usual
        threshold = self._critical_above(run, run.in_a_row) if severity == "critical" else self._too_much(baseline)
        return Finding(None, norm, threshold, message, severity, at_once=sudden)

    def _compared(self, run: _Run, norm: float) -> str:
        known = "the usual" if len(run.baseline) >= self._warm_up else "what it was at first"
        return f"{times(norm / run.baseline.median())} times {known}"

    def _exploded_at_the_start(self, optimizer: str, norm: float, baseline: Baseline) -> Finding | None:
        """The first norms hold a jump that did not come back: those before it are the baseline."""
        first = _before_the_jump(baseline.values(), self._factor, self._BACK)
        if first is None:
            return None
        baseline.keep(first)
        usual = baseline.median()
        message = (
            f"norm before clipping {norm:.3g}, {times(norm / usual)} times what it was at first. It has jumped at "
            f"step {first + 1} of {optimizer} and not come back"
        )
        return Finding(None, norm, self._factor * usual, message, "warning", at_once=True)


class _Run:
    """What is remembered of one optimizer.

    Attributes:
        baseline: its norms.
        is_warm: whether there are enough to judge by.
        in_a_row: how many running are too large.
        skipped: how many of these running were skipped.
        peak: the largest of these.
        survived: the largest that passed by itself, for so few steps that no explosion is known by it.
    """

    def __init__(self) -> None:
        self.baseline = Baseline()
        self.is_warm = False
        self.in_a_row = self.skipped = 0
        self.peak = self.survived = 0.0

    def came_back(self) -> None:
        """A norm is as usual."""
        if self.in_a_row:
            self.survived = max(self.survived, self.peak)
            self.in_a_row, self.peak = 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        counts = {"warm": self.is_warm, "in_a_row": self.in_a_row, "skipped": self.skipped}
        return {**self.baseline.state_dict(), **counts, "peak": self.peak, "survived": self.survived}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.baseline.load_state_dict(state)
        self.is_warm, self.in_a_row, self.skipped = state["warm"], state["in_a_row"], state["skipped"]
        self.peak, self.survived = state["peak"], state["survived"]


def _before_the_jump(norms: Sequence[float], factor: float, back: float) -> int | None:
    """How many norms came before all others jumped, three at least, and stayed there; None where none did."""
    for first in range(1, len(norms) - 2):
        before, after = max(norms[:first]), norms[first:]
        if min(after) > back * before and median_low(after) > factor * before:
            return first
    return None
