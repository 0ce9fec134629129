"""Rules on clipping: whether it does what it was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.judge.rule import Finding
from gradwatch.records import ClipCall, Severity, StepRecord

__all__ = ["ClipBroken"]


class ClipBroken:
    """The optimizer consumed more than the limit that clipping was given.

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
        """One finding, for the call that is exceeded most."""
        if record.skipped:
            return
        if record.clips:
            excesses = [(norm, limit) for clip in record.clips for norm, limit in self._excess(clip)]
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
