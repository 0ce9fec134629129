"""The rule on torch's own norm that overflows, so that clipping erases the update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from gradwatch.blocks import Block
from gradwatch.causes import cause
from gradwatch.judge.at_hand import where_of
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.records import Severity, StepRecord

__all__ = ["ClipOverflow"]


class ClipOverflow:
    """Finite gradients whose norm torch computed as Inf, so that clipping multiplied every one of them by 0.

    Torch sums squares in the gradients' own type: in float32 they overflow from a norm of 1.8e19 on.

    Args:
        clears_after: steps running without it before the episode is over.
    """

    id = "clip-overflow"
    severity: Severity = "critical"
    fires_after = 1

    @checked
    def __init__(self, *, clears_after: int = 10) -> None:
        self.clears_after = clears_after

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """One finding, for the first call whose norm overflowed."""
        for call in record.clips:
            true, torchs = call.scope_before, call.norm_returned
            if true is not None and math.isfinite(true) and torchs is not None and not math.isfinite(torchs):
                did = (
                    "made NaN of them"
                    if record.nonfinite
                    else "multiplied every gradient by 0 and erased the update"
                )
                message = (
                    f"torch computed a norm of {torchs} for finite gradients whose true norm is {true:.6g}: their "
                    f"squares overflow, so {call.function} {did}"
                )
                where = where_of(record, record.parameters)
                why = cause("clip-overflow", where, norm=true, norm_returned=torchs, limit=call.limit)
                yield Finding(None, true, call.limit, message, cause=why)
                return

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding]]:
        """Go on to the first step in which torch's own norm was not finite."""
        calls = block.common.calls
        if calls is not None and all(
            call.norms is not None and all(map(math.isfinite, call.norms)) for call in calls
        ):
            return len(block), ()
        for index in range(start, len(block)):
            for clip in block.rows[index].clips:
                if clip.norm_returned is not None and not math.isfinite(clip.norm_returned):
                    return index, self.look(block[index])
        return len(block), ()
