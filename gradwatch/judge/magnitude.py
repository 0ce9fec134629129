"""Rules on how large a gradient is: not finite, or far above what it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gradwatch.causes import cause
from gradwatch.judge.at_hand import shortcut
from gradwatch.judge.baseline import Baseline
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.records import Cause, Severity, StepRecord

__all__ = ["Explosion", "NonFinite"]


class NonFinite:
    """A gradient holds NaN or Inf.

    A step that was skipped for it, as under a GradScaler, has done no harm: that is a warning, until too many in
    a row were skipped.

    Args:
        skipped_after: skipped steps in a row after which one more is critical.
        clears_after: finite steps in a row before the episode is over.
        named: parameters that the message names; the record names them all.
    """

    id = "nonfinite"
    severity: Severity = "critical"
    fires_after = 1

    def __init__(self, *, skipped_after: int = 10, clears_after: int = 10, named: int = 3) -> None:
        self.clears_after = clears_after
        self._skipped_after = skipped_after
        self._named = named
        self._skipped_in_a_row: dict[str, int] = {}

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """One finding where any parameter's gradient is not finite."""
        bad = record.nonfinite
        if not (bad and record.skipped):
            self._skipped_in_a_row.pop(record.optimizer, None)
        if bad:
            yield self._skipped(record) if record.skipped else self._consumed(record)

    def state_dict(self) -> dict[str, int]:
        """Steps skipped in a row, by optimizer."""
        return dict(self._skipped_in_a_row)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._skipped_in_a_row = dict(state)

    def _skipped(self, record: StepRecord) -> Finding:
        row = self._skipped_in_a_row.get(record.optimizer, 0) + 1
        self._skipped_in_a_row[record.optimizer] = row
        message = f"{self._what(record)}; the step was skipped and changed nothing"
        if record.loss_scale is not None:
            message += f" (loss scale {record.loss_scale:g})"
        too_many = row >= self._skipped_after
        if too_many:
            message += f"; {row} steps in a row were skipped: training stands still"
        return self._finding(record, message, "critical" if too_many else "warning")

    def _consumed(self, record: StepRecord) -> Finding:
        message = f"{self._what(record)}; the optimizer has consumed it{_what_clipping_made_of_it(record)}"
        return replace(self._finding(record, message, "critical"), cause=_made_by_clipping(record))

    def _what(self, record: StepRecord) -> str:
        return f"NaN or Inf in the gradient of {listed(record.nonfinite, self._named)}"

    def _finding(self, record: StepRecord, message: str, severity: Severity) -> Finding:
        return Finding(None, float(len(record.nonfinite)), 0.0, message, severity)


def _what_clipping_made_of_it(record: StepRecord) -> str:
    """Torch's norm is then Inf or NaN, and its clipping multiplies all the other gradients by 0 or NaN."""
    norms = [clip.norm_returned for clip in record.clips if clip.norm_returned is not None]
    rest = math.hypot(*(n.norm_before for n in record.parameters.values() if math.isfinite(n.norm_before)))
    if all(map(math.isfinite, norms)) or rest == 0.0:
        return ""
    if math.isfinite(record.norm_before):
        return f"; torch's clipping, with a norm of {norms[0]}, made it of finite gradients"
    return f", and by a norm of {norms[0]} torch's clipping erased the finite rest, whose true norm is {rest:.6g}"


def _made_by_clipping(record: StepRecord) -> Cause | None:
    """Every gradient was finite, and the norm that torch computed of them in a clip call was not."""
    if not math.isfinite(record.norm_before):
        return None
    for clip in record.clips:
        if clip.norm_returned is not None and not math.isfinite(clip.norm_returned):
            evidence = {
                "norm": record.norm_before,
                "norm_returned": clip.norm_returned,
                "limit": clip.limit,
            }
            return cause("clip-overflow", record.optimizer, **evidence)
    return None


class Explosion:
    """The norm before clipping stands far above its own baseline, or above an absolute limit.

    The baseline is the median of the optimizer's norms so far; it takes no value in while the rule fires, so
    that an explosion does not become the new normal. Where norms vary widely by themselves, five standard
    deviations of their logarithm, estimated from the MAD, must be exceeded too.

    The baseline looks back on 200 steps. A norm that comes back to where it was before them, as an agent's does
    with each new batch of experience, is a warning: training has survived it.

    Args:
        factor: times the baseline, in ``fires_after`` steps running.
        sudden_factor: times the baseline, in a single step.
        limit: an absolute norm that is too much at any time.
        warm_up: norms seen before the baseline counts.
        fires_after: steps running above ``factor`` before the alert.
        clears_after: steps running below it before the episode is over.
    """

    id = "explosion"
    severity: Severity = "critical"
    _SIGMAS = 5.0
    # Times the highest level before, up to which a norm has come back to it.
    _BACK = 3.0

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
        self._baselines: dict[str, Baseline] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where the norm before clipping is too large; a norm of NaN or Inf tells nothing."""
        norm = record.norm_before
        if not math.isfinite(norm):
            return None
        baseline = self._baselines.setdefault(record.optimizer, Baseline())
        if norm > self._limit:
            message = f"norm before clipping {norm:.3g}, above the limit of {self._limit:.3g}"
            return [Finding(None, norm, self._limit, message, cause=shortcut(record), at_once=True)]
        if len(baseline) >= self._warm_up and norm > self._factor * baseline.median():
            usual = baseline.median()
            if norm > usual * baseline.spread() ** self._SIGMAS:
                return [self._finding(record, usual, baseline.height())]
        baseline.add(norm)
        return []

    def state_dict(self) -> dict[str, Any]:
        """The baselines by optimizer."""
        return {optimizer: baseline.state_dict() for optimizer, baseline in self._baselines.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        for optimizer, saved in state.items():
            self._baselines.setdefault(optimizer, Baseline()).load_state_dict(saved)

    def _finding(self, record: StepRecord, usual: float, before: float) -> Finding:
        norm = record.norm_before
        message = f"norm before clipping {norm:.3g}, {norm / usual:.3g} times the usual {usual:.3g}"
        severity: Severity = "critical"
        if norm <= self._BACK * before:
            message += f"; earlier in this run it was at {before:.3g}"
            severity = "warning"
        sudden = norm > self._sudden_factor * usual
        return Finding(None, norm, self._factor * usual, message, severity, shortcut(record), at_once=sudden)
