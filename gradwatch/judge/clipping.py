"""Rules on clipping: whether it does what it was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.records import ClipCall, Severity, StepRecord

__all__ = ["ClipBroken", "ClipOverflow"]


class ClipBroken:
    """Clipping did not do what it was asked for: the optimizer consumed more, or torch's own norm was wrong.

    Each call is held to its own limit over the gradients that it was given: two calls of limit 1 on two
    halves of an optimizer may leave a norm of 1.41. Only p-norms with p <= 2 bound the L2 norm.

    Args:
        tolerance: relative excess that float32 arithmetic explains.
        clears_after: steps running within the limit before the episode is over.
    """

    id = "clip-broken"
    severity: Severity = "critical"
    fires_after = 1

    # Torch sums squares in the gradient's own type and can return a norm that is too small by percents; the
    # clipped norm then exceeds the limit by that share. It is no fault of the loop's.
    _TORCH_ERROR = 1.05

    def __init__(self, *, tolerance: float = 1e-5, clears_after: int = 10) -> None:
        self.clears_after = clears_after
        self._tolerance = tolerance

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """One finding, of the gravest that holds."""
        if record.skipped:
            return
        grades = (self._exceeded, _repeated, _underflowed)
        found = (finding for grade in grades for finding in grade(record))
        yield from islice(found, 1)

    def _exceeded(self, record: StepRecord) -> Iterator[Finding]:
        """The call whose limit is exceeded most."""
        if record.clips:
            excesses = [excess for clip in record.clips if not clip.repeated for excess in self._excess(clip)]
        elif record.max_norm is not None and record.norm_after > record.max_norm * (1 + self._tolerance):
            excesses = [(record.norm_after, record.max_norm)]
        else:
            return
        if excesses:
            norm, limit = max(excesses, key=lambda excess: excess[0] - excess[1])
            message = (
                f"the optimizer consumed a norm of {norm:.6g} although clipping was asked for at most {limit:g}: "
                "gradients were changed after the clip call, or it ran before the last backward"
            )
            yield Finding(None, norm, limit, message)

    def _excess(self, clip: ClipCall) -> Iterator[tuple[float, float]]:
        if clip.norm_type is None or clip.norm_type > 2 or clip.scope_after is None:
            return
        allowed = clip.limit * (1 + self._tolerance) * self._torch_error(clip)
        if clip.scope_after > allowed:
            yield clip.scope_after, clip.limit

    def _torch_error(self, clip: ClipCall) -> float:
        if not clip.norm_returned or clip.scope_before is None or clip.norm_type != 2:
            return 1.0
        error = clip.scope_before / clip.norm_returned
        return error if 1.0 < error < self._TORCH_ERROR else 1.0


class ClipOverflow:
    """Finite gradients whose norm torch computed as Inf, so that clipping multiplied every one of them by 0.

    Torch sums squares in the gradients' own type: in float32 they overflow from a norm of 1.8e19 on.

    Args:
        clears_after: steps running without it before the episode is over.
    """

    id = "clip-overflow"
    severity: Severity = "critical"
    fires_after = 1

    def __init__(self, *, clears_after: int = 10) -> None:
        self.clears_after = clears_after

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """One finding, for the first call whose norm overflowed."""
        for clip in record.clips:
            true, torchs = clip.scope_before, clip.norm_returned
            if true is not None and math.isfinite(true) and torchs is not None and not math.isfinite(torchs):
                message = (
                    f"torch computed a norm of {torchs} for finite gradients whose true norm is {true:.6g}: their "
                    f"squares overflow, so {clip.function} multiplied every gradient by 0 and erased the update"
                )
                yield Finding(None, true, clip.limit, message)
                return


def _repeated(record: StepRecord) -> Iterator[Finding]:
    """A tied parameter that was passed twice: torch counts it twice, and scales it twice."""
    for clip in record.clips:
        true, torchs = clip.scope_before, clip.norm_returned
        if not clip.repeated or true is None or torchs is None:
            continue
        was_scaled = torchs > clip.limit
        message = (
            f"{listed(clip.repeated)} was given to {clip.function} more than once: torch computed a norm of "
            f"{torchs:.6g} where the true one is {true:.6g}"
            + (
                f", and scaled that gradient as often, down to a norm of {clip.scope_after:.6g}"
                if was_scaled
                else ""
            )
        )
        yield Finding(None, torchs, clip.limit, message, None if was_scaled else "warning")


def _underflowed(record: StepRecord) -> Iterator[Finding]:
    """Gradients so small that torch's own norm of them is 0."""
    for clip in record.clips:
        true = clip.scope_before
        if clip.norm_returned == 0.0 and true is not None and true > 0.0:
            message = (
                f"torch computed a norm of 0 for gradients whose true norm is {true:.6g}: their squares "
                f"underflow, so the limit of {clip.limit:g} was held against 0"
            )
            yield Finding(None, true, clip.limit, message, "warning")
