"""The rule on clipping that does not do what it was asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import ge, mul, truediv
from typing import NamedTuple

from gradwatch.blocks import AFTER, BEFORE, Block, NotedClip, StepRow
from gradwatch.judge.clip_given import (
    TORCH_ERROR,
    given_nothing,
    is_close,
    negative,
    number,
    repeated,
    still_scaled,
    underflowed,
    wrong_total,
)
from gradwatch.judge.clip_order import CHANGED, between_passes, excess, out_of_order, why
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
        # By optimizer, whether what was found in the step that was looked at last is critical.
        self._was_critical: dict[str, bool] = {}

    def look(self, record: StepRecord) -> list[Finding] | None:
        """One finding, of the gravest that holds; a skipped step tells nothing."""
        if record.skipped:
            return None
        self._instead[record.optimizer] = self._instead[record.optimizer] + 1 if record.clipped_instead else 0
        found = next(self._found(record), None)
        self._was_critical[record.optimizer] = found is not None and found.severity is None
        return [] if found is None else [found]

    def look_over(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step whose clipping is not plainly fine."""
        if not start and self._all_plainly_fine(block):
            self._instead[block.layout.optimizer] = 0
            return len(block), ()
        return self._go_on(block, start, self._is_plainly_fine)

    def look_on(self, block: Block, start: int) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step that may be in order, or may be worse than those before it."""
        return self._go_on(block, start, self._is_plainly_ill)

    def _go_on(
        self, block: Block, start: int, is_no_news: Callable[[Block, int, StepRow, float], bool]
    ) -> tuple[int, Iterable[Finding] | None]:
        """Go on to the first step that may be news, and look at it."""
        consumed = block.wholes[AFTER]
        for index in range(start, len(block)):
            row = block.rows[index]
            if not row.skipped:
                if row.clipped_instead or not is_no_news(block, index, row, consumed[index]):
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
        if not self._are_held(block, index, row):
            return False
        limit, _ = block.clipping[index]
        return limit is None or consumed <= limit * (1 + self._tolerance) or _all_was_given(block, index, row)

    def _is_plainly_ill(self, block: Block, index: int, row: StepRow, consumed: float) -> bool:
        """Something is found that is no worse than what was; where it says no, so it may be all the same."""
        if self._are_held(block, index, row):
            given = [_given(block, index, clip).after for clip in row.clips]
            return self._norm_left_out(consumed, block.clipping[index][0], given) is not None
        was_critical = self._was_critical.get(block.layout.optimizer, False)
        return was_critical and any(self._is_exceeded(clip, *_given(block, index, clip)) for clip in row.clips)

    def _are_held(self, block: Block, index: int, row: StepRow) -> bool:
        """All clip calls came in time, and did what they were asked for."""
        if row.facts.marks and not _LATE.isdisjoint(row.facts.marks):
            return False
        return all(self._held(block, index, clip, row.loss_scale) for clip in row.clips)

    def _held(self, block: Block, index: int, clip: NotedClip, scale: float | None) -> bool:
        """A call whose limit was kept, and whose norm was about the true one."""
        returned = clip.norm_returned
        if clip.limit < 0.0 or clip.repeated or returned == 0.0:
            return False
        if clip.norm_type is None or not len(clip.columns):
            # A norm that it did not compute itself was given to it.
            if returned is None or not len(clip.columns):
                return True
            return is_close(returned, _given(block, index, clip).before)
        before, after, rounding = _given(block, index, clip)
        if clip.norm_type == 2 and returned is not None:
            was_scaled = scale is not None and is_close(returned, before * scale)
            if was_scaled or not returned * TORCH_ERROR >= before:
                return False
        return clip.norm_type > 2 or after <= self._kept(clip, before, rounding)

    def _found(self, record: StepRecord) -> Iterator[Finding]:
        yield from negative(record)
        yield from self._exceeded(record)
        yield from given_nothing(record)
        yield from self._given_others(record)
        yield from wrong_total(record)
        yield from repeated(record)
        yield from still_scaled(record)
        yield from between_passes(record)
        yield from out_of_order(record)
        yield from self._left_out(record)
        yield from underflowed(record)

    def _exceeded(self, record: StepRecord) -> Iterator[Finding]:
        """The call whose limit is exceeded most."""
        if not record.clips:
            limit = record.max_norm
            if limit is not None and record.norm_after > limit * (1 + self._tolerance):
                yield excess(record.norm_after, limit, CHANGED)
            return
        exceeded = [call for call in record.clips if self._is_exceeded(call, *_given_in(call))]
        if exceeded:
            worst = max(exceeded, key=lambda call: number(call.scope_after) - call.limit)
            yield excess(number(worst.scope_after), worst.limit, why(worst, record))

    def _is_exceeded(self, call: ClipCall | NotedClip, before: float, after: float, rounding: float) -> bool:
        """A call that must keep a limit, and has not kept it; see ``_Given``."""
        must_keep = not call.repeated and call.norm_type is not None and call.norm_type <= 2
        return must_keep and after > self._kept(call, before, rounding)

    def _kept(self, call: ClipCall | NotedClip, before: float, rounding: float) -> float:
        """The most that a call leaves which keeps its limit, with what rounding explains; see ``_Given``."""
        error = 1.0
        if call.norm_type == 2 and call.norm_returned is not None:
            error = _torch_error(call.norm_returned, before)
        # The coefficient, and each product with it, is rounded in the gradient's own type.
        return abs(call.limit) * (1 + self._tolerance + 2 * rounding) * error

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
        limit, given = record.max_norm, [number(call.scope_after) for call in record.clips]
        left_out = self._norm_left_out(record.norm_after, limit, given)
        if left_out is not None:
            message = (
                f"clipping to {limit:g} was given a part of the optimizer's gradients only: the rest, of norm "
                f"{left_out:.3g}, was consumed unclipped"
            )
            remedy = "Pass clipping all of the optimizer's parameters in one call."
            yield Finding(None, left_out, number(limit), message, "warning", remedy=remedy)

    def _norm_left_out(self, consumed: float, limit: float | None, given: Sequence[float]) -> float | None:
        """The norm of what no call was given; None where it may be within the limit, or rounding.

        Args:
            consumed: norm of all.
            limit: the one that was asked for.
            given: what each call has left of its gradients.
        """
        if limit is None or not given or not consumed > limit * (1 + self._tolerance):
            return None
        together = math.hypot(*given)
        # Scopes may overlap: what is left out is then thought smaller than it is.
        left_out = math.sqrt(max(consumed - together, 0.0)) * math.sqrt(consumed + together)
        return left_out if left_out > max(limit, 1e-3 * consumed) else None


def _torch_error(returned: float, true: float) -> float:
    """By how much torch's norm was too small, where rounding explains it; 1 otherwise."""
    error = true / returned if returned else 1.0
    # Asked as in ``_saw_less``: what that lets pass is explained here, to the last bit.
    return error if error > 1.0 and returned * TORCH_ERROR >= true else 1.0


def _all_was_given(block: Block, index: int, row: StepRow) -> bool:
    """One call was given as good as all that was consumed."""
    nearly_all = block.norms(AFTER)[index] * (1 - 1e-9)
    return any(block.scope_norms(AFTER, c.columns)[index] >= nearly_all for c in row.clips if len(c.columns))


class _Given(NamedTuple):
    """What a call was given: its norms on both sides, NaN where nothing of it is there, and how it is rounded."""

    before: float
    after: float
    rounding: float


def _given(block: Block, index: int, clip: NotedClip) -> _Given:
    """In a step of a block."""
    if not len(clip.columns):
        return _Given(math.nan, math.nan, 0.0)
    before, after = (block.scope_norms(side, clip.columns).item(index) for side in (BEFORE, AFTER))
    return _Given(before, after, block.rounding(clip.columns))


def _given_in(call: ClipCall) -> _Given:
    """As a record has it."""
    return _Given(number(call.scope_before), number(call.scope_after), call.rounding)
