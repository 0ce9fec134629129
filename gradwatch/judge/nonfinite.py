"""The rule on gradients that hold NaN or Inf."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from gradwatch.blocks import Block
from gradwatch.causes import cause
from gradwatch.judge.not_taken import not_taken
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.judge.wording import listed
from gradwatch.records import Cause, Severity, StepRecord
from gradwatch.shapes import COUNT, Named

__all__ = ["NonFinite"]


class NonFinite:
    """A gradient holds NaN or Inf.

    A step that was skipped for it, as under a GradScaler, has done no harm: that is a warning, until too many in
    a row were skipped, or unless a guard has ended the loop there. Where a GradScaler has raised its scale, a lone
    skip is how it learns that this was too much, and no news.

    Args:
        skipped_after: skipped steps in a row after which one more is critical.
        clears_after: finite steps in a row before the episode is over.
        named: parameters that the message names; the record names them all.
    """

    id = "nonfinite"
    severity: Severity = "critical"
    severities: tuple[Severity, ...] = ("critical", "warning")
    wants_cause = True
    fires_after = 1

    @checked
    def __init__(self, *, skipped_after: int = 10, clears_after: int = 10, named: int = 3) -> None:
        self.clears_after = clears_after
        self._skipped_after = skipped_after
        self._named = named
        self._skipped_in_a_row: dict[str, int] = {}
        # By optimizer, the lowest loss scale of the steps that were sound and taken.
        self._sound_scales: dict[str, float] = {}
        # By optimizer, the step at which a guard has raised last.
        self._refused: dict[str, int] = {}

    def was_refused(self, optimizer: str, step: int) -> None:
        """A guard has raised an error in the place of this step."""
        self._refused[optimizer] = step

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding where any parameter's gradient is not finite."""
        bad = record.nonfinite
        if bad and record.skipped:
            row = self._skipped_in_a_row[record.optimizer] = self._skipped_in_a_row.get(record.optimizer, 0) + 1
            return None if row == 1 and self._is_tried(record) else [self._skipped(record, row)]
        self._is_sound(record.optimizer, None if bad or record.skipped else record.loss_scale)
        return [self._consumed(record)] if bad else []

    def _is_sound(self, optimizer: str, loss_scale: float | None) -> None:
        """A step was not skipped for this; at this scale it was sound, if that is known."""
        self._skipped_in_a_row.pop(optimizer, None)
        if loss_scale is not None:
            self._sound_scales[optimizer] = min(loss_scale, self._sound_scales.get(optimizer, math.inf))

    def _is_tried(self, record: StepRecord) -> bool:
        """Whether a GradScaler leaves this step out that has raised its scale, and was sound at a lower one."""
        scale = math.nan if record.loss_scale is None else record.loss_scale
        return scale > self._sound_scales.get(record.optimizer, math.inf) and not self._was_refused(record)

    def _was_refused(self, record: StepRecord) -> bool:
        return self._refused.get(record.optimizer) == record.step

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step with a gradient that is not finite."""
        if block.are_finite:
            # Without a skip a scale is only raised.
            self._is_sound(block.layout.optimizer, block.rows[start].loss_scale)
            return len(block), ()
        bad = block.nonfinite[start:]
        index = start + int(bad.argmax()) if bad.any() else len(block)
        for row in block.rows[start:index]:
            self._is_sound(block.layout.optimizer, None if row.skipped else row.loss_scale)
        return index, () if index == len(block) else self.look(block[index])

    remembers = Named(COUNT)

    def state_dict(self) -> dict[str, int]:
        """Steps skipped in a row, by optimizer."""
        return dict(self._skipped_in_a_row)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._skipped_in_a_row = dict(state)

    def _skipped(self, record: StepRecord, row: int) -> Finding:
        refused = self._was_refused(record)
        return self._finding(record, *not_taken(self._what(record), record, row, self._skipped_after, refused))

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
