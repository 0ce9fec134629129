"""The rule on a gradient that an earlier step had used already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gradwatch.blocks import AFTER, Block
from gradwatch.causes import cause
from gradwatch.judge.at_hand import where_of
from gradwatch.judge.consumed import norm_of
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.judge.wording import listed
from gradwatch.records import Severity, StepRecord

__all__ = ["Leaked"]


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
    wants_cause = True

    @checked
    def __init__(self, *, fires_after: int = 1, clears_after: int = 10) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """One finding, of all that leaked in."""
        leaked = record.leaked
        if not leaked or record.skipped:
            return
        norm, passes = norm_of(leaked, record), record.backward_passes
        how = (
            "it was not zeroed after the step before"
            if passes < 2
            else f"it was not zeroed before the {passes} backward passes of this step, or one was for another step"
        )
        message = (
            f"the step consumed a gradient of norm {norm:.3g} that an earlier step had used already, in "
            f"{listed(leaked)}: {how}"
        )
        why = cause("leaked", where_of(record, leaked), parameters=len(leaked), norm=norm, backward_passes=passes)
        yield Finding(None, norm, 0.0, message, cause=why)

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step with a part of an earlier one."""
        if "leaked" not in block.common.marks:
            return len(block), ()
        for index in range(start, len(block)):
            if "leaked" in block.rows[index].facts.marks:
                return index, self.look(block[index])
        return len(block), ()

    def look_on(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step with none: what leaks in meanwhile, and how much, is no news."""
        norms = block.parameter_norms(AFTER)
        for index in range(start, len(block)):
            row, facts = block.rows[index], block.rows[index].facts
            # A gradient of exactly 0 is none that has leaked.
            if row.skipped or not (facts.leaked & facts.has_after & (norms[index] != 0.0)).any():
                return index, ()
        return len(block), ()
