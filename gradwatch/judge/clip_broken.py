"""The rule on clipping that does not do what it was asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import ge, mul, truediv
from typing import NamedTuple

from gradwatch.blocks import AFTER, BEFORE, Block, NotedClip, StepRow
from gradwatch.judge.at_hand import where_of
from gradwatch.judge.clip_given import (
    MAY_UNDERFLOW,
    TORCH_ERROR,
    comparable,
    given_nothing,
    is_close,
    negative,
    number,
    repeated,
    still_scaled,
    underflowed,
    wrong_total,
)
from gradwatch.judge.rule import Finding
from gradwatch.judge.thresholds import checked
from gradwatch.records import ClipCall, Severity, StepRecord

__all__ = ["ClipBroken"]

# What passes and clip calls that came in the wrong order leave behind.
_LATE = frozenset(["missed_by_clip", "clipped_between"])


class ClipBroken:
    """Clipping did not do what it was asked for: the optimizer consumed more, or torch's own norm was wrong.

    Each call is held to its own limit over the gradients that it was given: two calls of limit 1 on two
    halves of an optimizer may leave a norm of 1.41. Only p-norms with p <= 2 bound the L2 norm. What is in the
    wrong order, and has not let through more than the limit so far, is a warning.

    Args:
        tolerance: relative excess that float32 arithmetic explains.
        clears_after: steps running within the limit before the episode is over.
    """

    id = "clip-broken"
    severity: Severity = "critical"
    severities: tuple[Severity, ...] = ("critical", "warning")
    fires_after = 1

    # So many steps running are no accident: a loop may clip, and then think better of it.
    _MISTAKE = 3

    @checked
    def __init__(self, *, tolerance: float = 1e-5, clears_after: int = 10) -> None:
        self.clears_after = clears_after
        self._tolerance = tolerance
        self._instead: Counter[str] = Counter()

    def look(self, record: StepRecord) -> Iterator[Finding] | None:
        """One finding, of the gravest that holds; a skipped step tells nothing."""
        if record.skipped:
            return None
        self._instead[record.optimizer] = self._instead[record.optimizer] + 1 if record.clipped_instead else 0
        return islice(self._found(record), 1)

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step whose clipping is not plainly fine."""
        if not start and self._all_plainly_fine(block):
            self._instead[block.layout.optimizer] = 0
            return len(block), ()
        consumed = block.wholes[AFTER]
        for index in range(start, len(block)):
            row = block.rows[index]
            if not row.skipped:
                if row.clipped_instead or not self._is_plainly_fine(block, index, row, consumed[index]):
                    return index, self.look(block[index])
                self._instead[block.layout.optimizer] = 0
        return len(block), ()

    def _all_plainly_fine(self, block: Block) -> bool:
        """So it is of each step: asked at once where all have but one clip call, of all that there is."""
        common = block.common
        if common.unusual or common.skipped or common.marks or common.calls is None:
            return False
        if not common.calls:
            return True
        (_, limits, norm_type, norms, columns, repeated), *more = common.calls
        if more or norm_type != 2 or norms is None or repeated or len(columns) < len(block.layout.names):
            return False
        if min(limits) < 0.0 or not all(norms):
            return False
        before, after = block.wholes
        # Written so that NaN is not fine.
        if not all(map(ge, [norm * TORCH_ERROR for norm in norms], before)):
            return False
        kept = [limit * (1 + self._tolerance) for limit in limits]
        # Of large tensors torch's norm is a little small, and what it leaves as much too large.
        return all(map(ge, kept, after)) or all(map(ge, map(mul, kept, map(truediv, before, norms)), after))

    def _is_plainly_fine(self, block: Block, index: int, row: StepRow, consumed: float) -> bool:
        """Nothing that is looked for can be found; where it says no, nothing need be."""
        if row.facts.marks and not _LATE.isdisjoint(row.facts.marks):
            return False
        for clip in row.clips:
            if not self._held(block, index, clip, row.loss_scale):
                return False
        limit, _ = block.clipping[index]
        return limit is None or consumed <= limit * (1 + self._tolerance) or _all_was_given(block, index, row)

    def _held(self, block: Block, index: int, clip: NotedClip, scale: float | None) -> bool:
        """A call whose limit was kept, and whose norm was about the true one."""
        returned = clip.norm_returned
        if clip.limit < 0.0 or clip.repeated or returned == 0.0:
            return False
        if clip.norm_type is None or not len(clip.columns):
            # A norm that it did not compute itself was given to it.
            if returned is None or not len(clip.columns):
                return True
            return is_close(returned, block.scope_norms(BEFORE, clip.columns).item(index))
        error = 1.0
        if clip.norm_type == 2 and returned is not None:
            before = block.scope_norms(BEFORE, clip.columns).item(index)
            if not returned * TORCH_ERROR >= before or (scale is not None and is_close(returned, before * scale)):
                return False
            error = _torch_error(returned, before)
        tolerance = self._tolerance + 2 * block.rounding(clip.columns)
        kept = block.scope_norms(AFTER, clip.columns).item(index) <= clip.limit * (1 + tolerance) * error
        return kept or clip.norm_type > 2

    def _found(self, record: StepRecord) -> Iterator[Finding]:
        yield from negative(record)
        yield from self._exceeded(record)
        yield from given_nothing(record)
        yield from self._given_others(record)
        yield from wrong_total(record)
        yield from repeated(record)
        yield from still_scaled(record)
        yield from _between_passes(record)
        yield from _out_of_order(record)
        yield from self._left_out(record)
        yield from underflowed(record)

    def _exceeded(self, record: StepRecord) -> Iterator[Finding]:
        """The call whose limit is exceeded most."""
        if not record.clips:
            limit = record.max_norm
            if limit is not None and record.norm_after > limit * (1 + self._tolerance):
                yield _excess(record.norm_after, limit, _CHANGED)
            return
        exceeded = [call for call in record.clips if not call.repeated and self._is_exceeded(call)]
        if exceeded:
            worst = max(exceeded, key=lambda call: number(call.scope_after) - call.limit)
            yield _excess(number(worst.scope_after), worst.limit, _why(worst, record))

    def _is_exceeded(self, call: ClipCall) -> bool:
        if call.norm_type is None or call.norm_type > 2 or call.scope_after is None:
            return False
        # The coefficient, and each product with it, is rounded in the gradient's own type.
        tolerance = self._tolerance + 2 * call.rounding
        error = 1.0
        if call.norm_type == 2 and call.norm_returned is not None and call.scope_before is not None:
            error = _torch_error(call.norm_returned, call.scope_before)
        return call.scope_after > abs(call.limit) * (1 + tolerance) * error

    def _given_others(self, record: StepRecord) -> Iterator[Finding]:
        """The call before each step was given another optimizer's gradients, which came to nothing."""
        times = self._instead[record.optimizer]
        if times >= self._MISTAKE:
            message = (
                f"the clip call before each of the last {times} steps was given the gradients of "
                f"{record.clipped_instead}, which no step has consumed, and none of this optimizer's: a norm of "
                f"{record.norm_after:.3g} was consumed unclipped"
            )
            remedy = f"Pass clipping the parameters of {record.optimizer}, not those of {record.clipped_instead}."
            yield Finding(None, record.norm_after, math.nan, message, remedy=remedy)

    def _left_out(self, record: StepRecord) -> Iterator[Finding]:
        """Gradients that no call was given, above the limit that the others were held to."""
        limit = record.max_norm
        if limit is None or not record.clips or not record.norm_after > limit * (1 + self._tolerance):
            return
        given = math.hypot(*(number(call.scope_after) for call in record.clips))
        # Scopes may overlap: what is left out is then thought smaller than it is.
        left_out = math.sqrt(max(record.norm_after - given, 0.0)) * math.sqrt(record.norm_after + given)
        if left_out > max(limit, 1e-3 * record.norm_after):
            message = (
                f"clipping to {limit:g} was given a part of the optimizer's gradients only: the rest, of norm "
                f"{left_out:.3g}, was consumed unclipped"
            )
            remedy = "Pass clipping all of the optimizer's parameters in one call."
            yield Finding(None, left_out, limit, message, "warning", remedy=remedy)


class _Why(NamedTuple):
    """Why a limit was not kept, and what to do."""

    words: str
    remedy: str


_CHANGED = _Why(
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


def _excess(norm: float, limit: float, why: _Why) -> Finding:
    message = (
        f"the optimizer consumed a norm of {norm:.6g} although clipping was asked for at most {limit:g}: "
        f"{why.words}"
    )
    return Finding(None, norm, limit, message, remedy=why.remedy)


def _why(call: ClipCall, record: StepRecord) -> _Why:
    """Where the clip call was, as far as the record shows it."""
    if call.norm_returned == 0.0:
        return _NOTHING_THERE
    if record.missed_by_clip or _saw_less(call) or _saw_more(call):
        return _OTHER_GRADIENTS
    return _CHANGED


def _saw_less(call: ClipCall) -> bool:
    """Torch measured less than what was there after the last backward."""
    return comparable(call) and number(call.norm_returned) * TORCH_ERROR < number(call.scope_before)


def _saw_more(call: ClipCall) -> bool:
    """Torch measured, and scaled, more than that, and yet nothing of it was scaled."""
    scaled = comparable(call) and number(call.norm_returned) > call.limit * TORCH_ERROR
    unscaled = number(call.scope_after) >= number(call.scope_before)
    return scaled and unscaled and number(call.norm_returned) > TORCH_ERROR * number(call.scope_before)


def _torch_error(returned: float, true: float) -> float:
    """By how much torch's norm was too small, where rounding explains it; 1 otherwise."""
    error = true / returned if returned else 1.0
    # Asked as in ``_saw_less``: what that lets pass is explained here, to the last bit.
    return error if error > 1.0 and returned * TORCH_ERROR >= true else 1.0


def _between_passes(record: StepRecord) -> Iterator[Finding]:
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


def _out_of_order(record: StepRecord) -> Iterator[Finding]:
    """A backward came after the last clip call; the limit happens to be kept so far."""
    late = [call for call in _last_of_each_scope(record) if _was_early(call)]
    if late or record.missed_by_clip:
        call = late[0] if late else None
        limit = number(record.max_norm if call is None else call.limit)
        why = _NOTHING_THERE if call is not None and call.norm_returned == 0.0 else _OTHER_GRADIENTS
        message = (
            f"clipping to {limit:g} had no hold on this step, whose norm is {record.norm_after:.3g}: {why.words}"
        )
        yield Finding(None, record.norm_after, limit, message, "warning", remedy=why.remedy)


def _was_early(call: ClipCall) -> bool:
    """The optimizer consumed more than torch saw in the call, of gradients that were not yet these."""
    if not math.isfinite(call.limit) or not _saw_less(call):
        return False
    return number(call.scope_after) > max(TORCH_ERROR * number(call.norm_returned), MAY_UNDERFLOW)


def _last_of_each_scope(record: StepRecord) -> Iterator[ClipCall]:
    """A loop that clips and then leaves the step out, for a NaN perhaps, has clipped the same scope before."""
    yield from {(call.scope_before, call.scope_after): call for call in record.clips}.values()


def _all_was_given(block: Block, index: int, row: StepRow) -> bool:
    """One call was given as good as all that was consumed."""
    nearly_all = block.norms(AFTER)[index] * (1 - 1e-9)
    return any(block.scope_norms(AFTER, c.columns)[index] >= nearly_all for c in row.clips if len(c.columns))
