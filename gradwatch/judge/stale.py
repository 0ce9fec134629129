"""The rule on a gradient that nothing has written for the step that consumes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gradwatch.blocks import Block
from gradwatch.causes import cause
from gradwatch.judge.at_hand import where_of
from gradwatch.judge.consumed import how_many, norm_of
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.records import GroupNorms, Severity, StepRecord

__all__ = ["Stale"]


class _Consumed(NamedTuple):
    """What the last step of an optimizer left: its number, and where its record is, made when it is needed."""

    step: int
    records: Sequence[StepRecord]
    place: int

    @property
    def parameters(self) -> Mapping[str, GroupNorms]:
        return self.records[self.place].parameters


class Stale:
    """The step consumed gradients that nothing has written since the step before: it repeats an old update.

    A parameter counts only where its norm is what the last step left, since some writes leave no other trace.

    Args:
        fires_after: steps running before the alert.
        clears_after: steps running without any before the episode is over.
    """

    id = "stale"
    severity: Severity = "critical"
    wants_cause = True

    @checked
    def __init__(self, *, fires_after: int = 1, clears_after: int = 5) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._last: dict[str, _Consumed] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding, of all stale gradients."""
        if record.skipped:
            return None
        before = self._last.get(record.optimizer)
        self._last[record.optimizer] = _Consumed(record.step, (record,), 0)
        stale = _unchanged(record.stale, record, before)
        if not stale:
            return []
        norm, where = norm_of(stale, record), where_of(record, stale)
        message = (
            f"the step consumed an old gradient, of norm {norm:.3g}: no backward pass has written "
            f"{how_many(stale, record)} since the step before"
        )
        why = cause("stale", where, parameters=len(stale), norm=norm, backward_passes=record.backward_passes)
        return [Finding(None, norm, 0.0, message, cause=why)]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step with an old gradient."""
        common = block.common
        if not common.skipped and "stale" not in common.marks:
            self._remember(block, len(block) - 1)
            return len(block), ()
        last = None
        for index in range(start, len(block)):
            row = block.rows[index]
            if "stale" in row.facts.marks:
                self._remember(block, last)
                return index, self.look(block[index])
            last = last if row.skipped else index
        self._remember(block, last)
        return len(block), ()

    def _remember(self, block: Block, index: int | None) -> None:
        if index is not None:
            self._last[block.layout.optimizer] = _Consumed(block.rows[index].step, block.fresh(), index)


def _unchanged(names: Sequence[str], record: StepRecord, before: _Consumed | None) -> list[str]:
    """Those whose norm is what the last step consumed; that is not known where that step was not measured."""
    if not names or before is None or before.step + 1 != record.step:
        return list(names)
    left = before.parameters
    return [name for name in names if _is_as_left(left.get(name), record.parameters.get(name))]


def _is_as_left(was: GroupNorms | None, now: GroupNorms | None) -> bool:
    return was is None or now is None or math.isclose(was.norm_after, now.norm_before, rel_tol=1e-9)
