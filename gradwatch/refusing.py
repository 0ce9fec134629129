"""Steps that would do harm, stopped or left out before they are applied: what ``track(guard=...)`` asks for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from gradwatch.blocks import AFTER, BEFORE, Block
from gradwatch.errors import ExplodingGradientError, GradwatchError, NonFiniteGradientError
from gradwatch.guarding import Guard
from gradwatch.measure.pending import PendingStep, block_of
from gradwatch.measure.tracked import TrackedOptimizer

__all__ = ["Refusing"]


class Refusing:
    """Looks at each step before it is applied; that waits for the device, once a step.

    Args:
        guard: what is wanted.
        critical_above: by optimizer, the norm before clipping that the rule ``explosion`` would call critical.
        on_any_rank: whether something is so on any rank that has parts of the same parameters.
    """

    def __init__(
        self, guard: Guard, critical_above: Callable[[str], float], on_any_rank: Callable[[bool], bool]
    ) -> None:
        self._guard = guard
        self._critical_above = critical_above
        self._on_any_rank = on_any_rank
        self._in_a_row: Counter[str] = Counter()

    def of(self, tracked: TrackedOptimizer, step: PendingStep) -> GradwatchError | str | None:
        """What becomes of a step: an error to be raised in its place, ``"skip"``, or None where it may go on."""
        if step.norms is not None:
            tracked.ledger.devices.send()
            step.wait()
        block = block_of([step.landed()])
        action, error = self._judged(tracked, block)
        if error is None:
            self._in_a_row.pop(tracked.name, None)
            return None
        self._in_a_row[tracked.name] += 1
        if self._in_a_row[tracked.name] < self._guard.after:
            return None
        return error if action == "raise" else "skip"

    def _judged(self, tracked: TrackedOptimizer, block: Block) -> tuple[str | None, GradwatchError | None]:
        consumed = block.parameter_norms(AFTER)[0]
        bad = block.layout.named(~np.isfinite(consumed) & block.rows[0].facts.has_after)
        # Each rank sees its own parts; a step is taken by all of them or by none.
        if self._on_any_rank(bool(bad) and not block.rows[0].skipped):
            return self._guard.nonfinite, _nonfinite(tracked, bad)
        if self._guard.explosion is None:
            return None, None
        norm, limit = float(block.norms(BEFORE)[0]), self._critical_above(tracked.name)
        if not norm > limit:
            return None, None
        return self._guard.explosion, _exploding(tracked, norm, limit)


def _nonfinite(tracked: TrackedOptimizer, bad: tuple[str, ...]) -> GradwatchError:
    whose = bad[0] if bad else "a parameter of which another rank has a part"
    return NonFiniteGradientError(
        f"Step {tracked.steps + 1} of {tracked.name!r} was stopped, since the gradient of {whose} "
        f"{f'and of {len(bad) - 1} more ' if len(bad) > 1 else ''}holds NaN or Inf: nothing was changed, so "
        "look at this step's data and loss."
    )


def _exploding(tracked: TrackedOptimizer, norm: float, limit: float) -> GradwatchError:
    usual = f", above {limit:.3g}" if math.isfinite(limit) else ""
    return ExplodingGradientError(
        f"Step {tracked.steps + 1} of {tracked.name!r} was stopped, since its norm before clipping is {norm:.3g}"
        f"{usual}: nothing was changed, so look at this step's data and loss."
    )
