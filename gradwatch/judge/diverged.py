"""The rule on data-parallel ranks whose gradients differ."""

from __future__ import annotations

from collections.abc import Iterable

from gradwatch.blocks import Block
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.records import Severity, StepRecord

__all__ = ["Diverged"]


class Diverged:
    """Ranks that should consume one averaged gradient consume different ones: they train different models.

    Args:
        roundings: how many machine epsilons of the gradients' coarsest type the norms may differ by. Ranks hold
            the same sum; a clip call multiplies it by a factor that each has rounded a few times by itself.
        fires_after: comparisons running, one in 16 steps, before the alert.
        clears_after: comparisons running without a difference before the episode is over.
    """

    id = "diverged"
    severity: Severity = "critical"

    @checked
    def __init__(self, *, roundings: float = 8.0, fires_after: int = 3, clears_after: int = 3) -> None:
        self.roundings = roundings
        self.fires_after = fires_after
        self.clears_after = clears_after

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where the norms of two ranks differ; None where none were compared."""
        both = record.compared
        if both is None:
            return None
        larger = max(both.here, both.there)
        apart = abs(both.here - both.there) / larger if larger else 0.0
        allowed = self.roundings * both.rounding
        if apart <= allowed:
            return []
        message = (
            f"this rank consumed a gradient of norm {both.here:.6g} at step {both.step}, rank {both.rank} one of "
            f"{both.there:.6g}: the gradients of DistributedDataParallel are not averaged over the ranks"
        )
        return [Finding(None, apart, allowed, message)]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step with a difference; without one nothing is remembered."""
        if not block.common.unusual:
            return len(block), ()
        for index in range(start, len(block)):
            if block.rows[index].compared is not None and (found := self.look(block[index])):
                return index, found
        return len(block), ()
