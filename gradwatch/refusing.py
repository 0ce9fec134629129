"""Steps that would do harm, stopped or left out before they are applied: what ``track(guard=...)`` asks for.

To stop a step the host has to know of it, and waits for the device. To leave one out is what the device of a fused
optimizer decides by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gradwatch.blocks import AFTER, BEFORE
from gradwatch.errors import ExplodingGradientError, GradwatchError, NonFiniteGradientError
from gradwatch.found_inf import FoundInf, honours
from gradwatch.guarding import Guard
from gradwatch.log import log
from gradwatch.measure.pending import PendingStep, block_of
from gradwatch.measure.tracked import TrackedOptimizer
from gradwatch.printing import printable

__all__ = ["Refusing"]

_STANDS_STILL = (
    "The guard has left out %d steps of %s in a row, up to step %d: training stands still, and what is wrong may "
    "stay so. Go back to a checkpoint from before, or lower the learning rate."
)


class Refusing:
    """Looks at each step before it is applied: once a step that waits for the device, unless this one can decide.

    Args:
        guard: what is wanted.
        critical_above: by optimizer, the norm before clipping that the rule ``explosion`` would call critical.
        on_any_rank: whether something is so on any rank that has parts of the same parameters.
        refused: told of each step, by optimizer and number, at which an error is raised.
    """

    # So many steps left out in a row are no accident.
    MANY = 10

    def __init__(
        self,
        guard: Guard,
        critical_above: Callable[[str], float],
        on_any_rank: Callable[[bool], bool],
        refused: Callable[[str, int], None],
    ) -> None:
        self._guard = guard
        self._refused = refused
        self._critical_above = critical_above
        self._on_any_rank = on_any_rank
        # By optimizer, explosions in a row, and steps left out in a row.
        self._in_a_row: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._only_skips = guard.nonfinite == "skip" and guard.explosion in ("skip", None)
        # By optimizer, those whose device has decided once.
        self._found_inf: dict[str, FoundInf] = {}

    def measured(self, tracked: TrackedOptimizer, step: PendingStep) -> None:
        """A step is measured, and its numbers may be on a device: let that decide, if it can."""
        self.done(tracked.name)  # the last step may have ended in an exception
        if not (self._only_skips and tracked.ledger.devices.used and honours(tracked.optimizer)):
            return
        harm = self._harm(tracked, step)
        if harm is not None:
            if tracked.name not in self._found_inf:
                self._found_inf[tracked.name] = FoundInf(tracked.optimizer, self._guard.after)
            self._found_inf[tracked.name].put(*harm)

    def done(self, optimizer: str) -> None:
        """The step is over."""
        found_inf = self._found_inf.get(optimizer)
        if found_inf is not None:
            found_inf.take_back()

    def close(self) -> None:
        """Leave no step out any more."""
        for optimizer in self._found_inf:
            self.done(optimizer)

    def of(self, tracked: TrackedOptimizer, step: PendingStep) -> GradwatchError | str | None:
        """What becomes of a step: an error to be raised in its place, ``"skip"``, or None where it may go on."""
        found = self._found(tracked, step)
        if isinstance(found, GradwatchError):
            self._refused(tracked.name, step.row.step)
        self._left_out[tracked.name] = self._left_out[tracked.name] + 1 if found == "skip" else 0
        if self._left_out[tracked.name] == self.MANY:
            log.warning(_STANDS_STILL, self.MANY, printable(tracked.name), step.row.step)
        return found

    def _found(self, tracked: TrackedOptimizer, step: PendingStep) -> GradwatchError | str | None:
        found_inf = self._found_inf.get(tracked.name)
        if found_inf is not None and found_inf.is_put:
            return None
        if step.awaited is not None:
            tracked.ledger.devices.send()
            step.wait()
        block = block_of([step.landed()])
        norm, limit = float(block.norms(BEFORE)[0]), self._limit(tracked)
        self._in_a_row[tracked.name] = self._in_a_row[tracked.name] + 1 if norm > limit else 0
        consumed = block.parameter_norms(AFTER)[0]
        bad = block.layout.named(~np.isfinite(consumed) & block.rows[0].facts.has_after)
        # Each rank sees its own parts; a step is taken by all of them or by none.
        if self._on_any_rank(bool(bad) and not block.rows[0].skipped):
            return _nonfinite(tracked, bad) if self._guard.nonfinite == "raise" else "skip"
        if norm > limit and self._in_a_row[tracked.name] >= self._guard.after:
            return _exploding(tracked, norm, limit) if self._guard.explosion == "raise" else "skip"
        return None

    def _limit(self, tracked: TrackedOptimizer) -> float:
        """The norm before clipping from which a step is left out or stopped."""
        return math.inf if self._guard.explosion is None else self._critical_above(tracked.name)

    def _harm(self, tracked: TrackedOptimizer, step: PendingStep) -> tuple[Tensor, Tensor | None] | None:
        """Whether a step is not finite and whether it explodes, on its device; None where the host has to look."""
        if len(step.own.sharded):
            return None
        with torch.inference_mode(False), torch.no_grad():
            consumed = tracked.ledger.devices.gathered(AFTER, np.flatnonzero(step.row.facts.has_after))
            if consumed is None:
                return None
            nonfinite, limit = consumed.isfinite().all().logical_not(), self._limit(tracked)
            if limit == math.inf:
                return nonfinite, None
            norm = _norm_before(tracked, step)
            return None if norm is None else (nonfinite, norm > limit)


def _norm_before(tracked: TrackedOptimizer, step: PendingStep) -> Tensor | None:
    """The norm before clipping, on its device; None where no one device has all of it."""
    facts, covered = step.row.facts, step.covered
    before = facts.had_before if covered is None else facts.had_before & covered
    sides = ((BEFORE, before), (AFTER, facts.had_before & ~before))
    norms = [tracked.ledger.devices.gathered(side, np.flatnonzero(there)) for side, there in sides if there.any()]
    if not norms or any(some is None for some in norms):
        return None
    norm = torch.cat([some for some in norms if some is not None]).square().sum().sqrt()
    scale = getattr(tracked.optimizer, "grad_scale", None)
    return norm if scale is None else norm / scale.to(norm.device, non_blocking=True)


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
