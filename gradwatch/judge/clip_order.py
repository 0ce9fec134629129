"""Clip calls, backward passes and the step in the wrong order, as the record of a step shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gradwatch.judge.at_hand import where_of
from gradwatch.judge.clip_given import MAY_UNDERFLOW, TORCH_ERROR, comparable, number
from gradwatch.judge.rule import Finding
from gradwatch.records import ClipCall, StepRecord

__all__ = ["CHANGED", "between_passes", "excess", "out_of_order", "why"]


class _Why(NamedTuple):
    """Why a limit was not kept, and what to do."""

    words: str
    remedy: str


CHANGED = _Why(
    "gradients were changed after the clip call",
    "Clip after all that changes the gradients, and directly before the step.",
)
_NOTHING_THERE = _Why(
    "it ran before the backward: every gradient was 0 at that time",
    "Move the clip call to after backward().",
)
_OTHER_GRADIENTS = _Why(
    "it ran before the last backward or after the previous step, on other gradients than these",
    "Move the clip call to between the last backward() and step().",
)


def excess(norm: float, limit: float, reason: _Why) -> Finding:
    """A norm was consumed that is above the limit that was asked for."""
    message = (
        f"the optimizer consumed a norm of {norm:.6g} although clipping was asked for at most {limit:g}: "
        f"{reason.words}"
    )
    return Finding(None, norm, limit, message, remedy=reason.remedy)


def why(call: ClipCall, record: StepRecord) -> _Why:
    """Where the clip call was, as far as the record shows it."""
    if call.norm_returned == 0.0:
        return _NOTHING_THERE
    if record.missed_by_clip or _saw_less(call) or _saw_more(call):
        return _OTHER_GRADIENTS
    return CHANGED


def _saw_less(call: ClipCall) -> bool:
    """Torch measured less than what was there after the last backward."""
    return comparable(call) and number(call.norm_returned) * TORCH_ERROR < number(call.scope_before)


def _saw_more(call: ClipCall) -> bool:
    """Torch measured, and scaled, more than that, and yet nothing of it was scaled."""
    scaled = comparable(call) and number(call.norm_returned) > call.limit * TORCH_ERROR
    unscaled = number(call.scope_after) >= number(call.scope_before)
    return scaled and unscaled and number(call.norm_returned) > TORCH_ERROR * number(call.scope_before)


def between_passes(record: StepRecord) -> Iterator[Finding]:
    """Clipping ran on what an earlier micro-batch left, and then another one added to it."""
    names = record.clipped_between
    if names:
        returned = [call.norm_returned for call in record.clips if call.norm_returned is not None]
        limit = math.nan if record.max_norm is None else record.max_norm
        was_scaled = any(norm > limit for norm in returned[:-1] or returned)
        message = (
            "clipping ran between backward passes of this step, not once after the last: the gradient of "
            f"{where_of(record, names)} is a sum in which earlier passes were clipped again"
        )
        value, remedy = max(returned, default=math.nan), "Clip once, after the last backward() and before step()."
        yield Finding(None, value, limit, message, None if was_scaled else "warning", remedy=remedy)


def out_of_order(record: StepRecord) -> Iterator[Finding]:
    """A backward came after the last clip call; the limit happens to be kept so far."""
    late = [call for call in _last_of_each_scope(record) if _was_early(call)]
    if late or record.missed_by_clip:
        call = late[0] if late else None
        limit = number(record.max_norm if call is None else call.limit)
        reason = _NOTHING_THERE if call is not None and call.norm_returned == 0.0 else _OTHER_GRADIENTS
        message = (
            f"clipping to {limit:g} had no hold on this step, whose norm is {record.norm_after:.3g}: "
            f"{reason.words}"
        )
        yield Finding(None, record.norm_after, limit, message, "warning", remedy=reason.remedy)


def _was_early(call: ClipCall) -> bool:
    """The optimizer consumed more than torch saw in the call, of gradients that were not yet these."""
    if not math.isfinite(call.limit) or not _saw_less(call):
        return False
    return number(call.scope_after) > max(TORCH_ERROR * number(call.norm_returned), MAY_UNDERFLOW)


def _last_of_each_scope(record: StepRecord) -> Iterator[ClipCall]:
    """A loop that clips and then leaves the step out, for a NaN perhaps, has clipped the same scope before."""
    yield from {(call.scope_before, call.scope_after): call for call in record.clips}.values()
