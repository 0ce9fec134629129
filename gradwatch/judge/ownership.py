"""Rules on whose gradient a step consumes: one that was written for it, or one that was used before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from gradwatch.causes import cause
from gradwatch.judge.at_hand import where_of
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.records import Severity, StepRecord

__all__ = ["Leaked", "Stale"]


class Stale:
    """The step consumed gradients that nothing has written since the step before: it repeats an old update.

    A parameter counts only where its norm is what the last step left, since some writes leave no other trace.

    Args:
        fires_after: steps running before the alert.
        clears_after: steps running without any before the episode is over.
    """

    id = "stale"
    severity: Severity = "critical"

    def __init__(self, *, fires_after: int = 1, clears_after: int = 5) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._last: dict[str, StepRecord] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding, of all stale gradients."""
        if record.skipped:
            return None
        before = self._last.get(record.optimizer)
        self._last[record.optimizer] = record
        stale = [name for name in record.stale if _is_unchanged(name, record, before)]
        if not stale:
            return []
        norm, where = _norm_of(stale, record), where_of(record, stale)
        message = (
            f"the step consumed an old gradient, of norm {norm:.3g}: no backward pass has written "
            f"{_how_many(stale, record)} since the step before"
        )
        why = cause("stale", where, parameters=len(stale), norm=norm, backward_passes=record.backward_passes)
        return [Finding(None, norm, 0.0, message, cause=why)]


class Leaked:
    """The step consumed a gradient that an earlier step had used already, with what was written since on top.

    Either it is never zeroed, and each step repeats all updates before it; or another optimizer's loss ran
    through these parameters and left its gradient there.

    Args:
        fires_after: steps running before the alert.
        clears_after: steps running without any before the episode is over.
    """

    id = "leaked"
    severity: Severity = "warning"

    def __init__(self, *, fires_after: int = 1, clears_after: int = 10) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """One finding, of all that leaked in."""
        leaked = record.leaked
        if not leaked or record.skipped:
            return
        norm, passes = _norm_of(leaked, record), record.backward_passes
        how = (
            "it was not zeroed after the step before"
            if passes < 2
            else f"of the {passes} backward passes that have written it, one was for another step"
        )
        message = (
            f"the step consumed a gradient that an earlier step had used already, in {_how_many(leaked, record)} "
            f"(norm {norm:.3g}): {how}"
        )
        why = cause("leaked", where_of(record, leaked), parameters=len(leaked), norm=norm, backward_passes=passes)
        yield Finding(None, norm, 0.0, message, cause=why)


def _is_unchanged(name: str, record: StepRecord, before: StepRecord | None) -> bool:
    """Whether its norm is what the last step consumed; that is not known where that step was not measured."""
    if before is None or before.step + 1 != record.step:
        return True
    was = before.parameters.get(name)
    now = record.parameters.get(name)
    return was is None or now is None or math.isclose(was.norm_after, now.norm_before, rel_tol=1e-9)


def _norm_of(names: Sequence[str], record: StepRecord) -> float:
    return math.hypot(*(record.parameters[name].norm_after for name in names if name in record.parameters))


def _how_many(names: Sequence[str], record: StepRecord) -> str:
    whole = len(record.parameters)
    return listed(names) + (f" ({len(names)} of {whole} parameters)" if whole > 1 else "")
