"""How a rule tells of a step that was not taken: it has done no harm, as long as training goes on."""

from __future__ import annotations

from gradwatch.blocks import StepRow
from gradwatch.records import Severity, StepRecord

__all__ = ["not_taken"]


def not_taken(
    message: str, step: StepRecord | StepRow, in_a_row: int, too_many: int, refused: bool
) -> tuple[str, Severity]:
    """What is said of a step that the optimizer did not apply, and how grave it is.

    Args:
        message: what was wrong with it.
        step: as it was measured.
        in_a_row: so many were skipped running, this one among them.
        too_many: so many are critical.
        refused: the loop was stopped there by an exception.
    """
    message += f"; the step was {'refused' if refused else 'skipped'} and changed nothing"
    if step.loss_scale is not None:
        message += f" (loss scale {step.loss_scale:g})"
    if refused:
        return message, "critical"
    if in_a_row < too_many:
        return message, "warning"
    return f"{message}; {in_a_row} steps in a row were skipped: training stands still", "critical"
