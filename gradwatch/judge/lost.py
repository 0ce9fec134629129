"""The rule on backward passes whose gradients were erased before a step used them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gradwatch.blocks import Block
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.judge.wording import listed
from gradwatch.paths import highest, owner_of
from gradwatch.records import Cause, Severity, StepRecord
from gradwatch.shapes import COUNT, Named, Row

__all__ = ["Lost"]

_REMEDY = "Call zero_grad() once for each step, right after it: here it ran between the passes of one step."
_OF_A_PART = (
    "Call zero_grad() once for each step, on the whole optimizer, right after it: here a part was zeroed between "
    "the passes of one step."
)


class Lost:
    """Backward passes wrote gradients that were erased before the step: an accumulation that is none.

    They come from the line that the pass which is left comes from, and the weights were the same. It may be a
    part that was erased, while other parameters have kept all. A loop that collects the gradients of its passes
    elsewhere, and steps with what it has made of them, has lost none: the step must have consumed what the last
    pass wrote, clipped perhaps. An accumulation erases as many in each step; batches that are dropped now and
    then are none.

    Args:
        fires_after: steps running, of as many passes, before the alert.
        clears_after: steps running without any before the episode is over.
    """

    id = "lost"
    severity: Severity = "critical"

    @checked
    def __init__(self, *, fires_after: int = 3, clears_after: int = 10) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after
        self._last: dict[str, tuple[int, int]] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where passes were lost, as many as in the step before."""
        if record.skipped:
            return None
        last = self._last.pop(record.optimizer, None)
        lost, passes = record.lost_passes, record.backward_passes
        if not lost or not _is_as_written(record):
            return []
        self._last[record.optimizer] = lost, passes
        if last not in (None, (lost, passes)):
            return []
        parts = _parts(record)
        of, there = (f" of {listed(parts)}", " there") if parts else ("", "")
        message = (
            f"the gradients{of} of {lost} of the {passes} backward passes before the step were erased before it: "
            f"only what came after is consumed{there}, though all passes come from the same line"
        )
        numbers = {"lost_passes": lost, "backward_passes": passes}
        where, remedy = (parts[0], _OF_A_PART) if parts else (record.optimizer, _REMEDY)
        return [Finding(None, float(lost), 0.0, message, cause=Cause("zeroed", where, numbers, remedy))]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step that has lost some."""
        if not (self._last or block.common.unusual):
            return len(block), ()
        for index in range(start, len(block)):
            row = block.rows[index]
            if row.lost_passes:
                return index, self.look(block[index])
            if self._last and not row.skipped:
                self._last.pop(block.layout.optimizer, None)
        return len(block), ()

    remembers = Named(Row(COUNT, COUNT))

    def state_dict(self) -> dict[str, list[int]]:
        """By optimizer, the passes lost in its last step, and all of that step."""
        return {name: list(last) for name, last in self._last.items()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._last = {name: (lost, passes) for name, (lost, passes) in state.items()}


def _parts(record: StepRecord) -> list[str]:
    """The highest modules of which all was erased, and parameters of others; nothing where that is everything."""
    if not record.lost:
        return []
    spared = {owner_of(name) for name in record.parameters if name not in record.lost}
    lost = dict.fromkeys(map(owner_of, record.lost))
    owners = [owner for owner in lost if owner not in spared]
    return [*highest(owners, {*lost, *spared}), *(name for name in record.lost if owner_of(name) in spared)]


# float32 sums, and the coefficient of clipping rounded in the type of the gradient.
_ROUNDING = 1e-3


def _is_as_written(record: StepRecord) -> bool:
    """Whether each gradient is what the last pass wrote, or all are smaller by one factor, as after clipping."""
    tolerance = _ROUNDING + 2 * max((call.rounding for call in record.clips), default=0.0)
    factor = record.clip_ratio if record.clips else 1.0
    norms = [pair for pair in record.parameters.values() if pair.norm_before > 0.0]
    return factor <= 1.0 + tolerance and all(
        math.isclose(after, before * factor, rel_tol=tolerance) for before, after in norms
    )
