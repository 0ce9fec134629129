"""Rules on gradients that are not there: exactly zero, or missing."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.judge.rule import Finding
from gradwatch.records import GroupNorms, Severity, StepRecord

__all__ = ["Zero"]


class Zero:
    """A module's gradient is exactly 0, or it has none at all: its parameters do not learn.

    Without modules the rule looks at the optimizer as a whole.

    Args:
        fires_after: steps running before the alert.
        clears_after: steps running with a gradient before the episode is over.
    """

    id = "zero"
    severity: Severity = "critical"

    def __init__(self, *, fires_after: int = 3, clears_after: int = 3) -> None:
        self.fires_after = fires_after
        self.clears_after = clears_after

    def look(self, record: StepRecord) -> Iterator[Finding]:
        """One finding for each module without a gradient."""
        if record.skipped:
            return
        if not record.modules:
            whole = GroupNorms(record.norm_before, record.norm_after)
            none_at_all = bool(record.missing) and len(record.missing) == len(record.parameters)
            yield from _finding(None, "the optimizer's gradient", whole, none_at_all)
        for name, norms in record.modules.items():
            yield from _finding(name, f"the gradient of {name}", norms, name in record.missing_modules)


def _finding(module: str | None, what: str, norms: GroupNorms, missing: bool) -> Iterator[Finding]:
    if missing:
        message = f"{what} is missing: .grad is None for each of its parameters, so nothing is learned there"
    elif norms.norm_after == 0.0 and norms.norm_before > 0.0:
        message = (
            f"{what} was {norms.norm_before:.3g} after backward and exactly 0 at the step: it was erased between"
        )
    elif norms.norm_after == 0.0:
        message = f"{what} is exactly 0, so nothing is learned there"
    else:
        return
    yield Finding(module, 0.0, 0.0, message)
