"""At the end of a run: an optimizer of which no step was seen, though backward passes wrote its gradients."""

from __future__ import annotations

from collections.abc import Mapping

from gradwatch.log import log
from gradwatch.measure.tracked import TrackedOptimizer
from gradwatch.printing import printable

__all__ = ["tell_of_unseen_steps"]


def tell_of_unseen_steps(several: Mapping[str, TrackedOptimizer]) -> None:
    """Warn of optimizers whose steps the loop hides, of those it has replaced, and of those it never steps.

    Args:
        several: the optimizers of one tracker, by name.
    """
    for name, tracked in several.items():
        others = (other.own for other in several.values() if other is not tracked and other.steps)
        if any(tracked.own.common_with(other) for other in others):
            continue  # another optimizer steps what this one holds
        if tracked.steps_unseen:
            log.warning(
                "gradwatch saw no step of %s%s and has no record of it, though its weights have changed: give "
                "track the optimizer whose step() the loop calls, not one that it has replaced, and make it by "
                "the constructor of torch.optim.Optimizer.",
                printable(name),
                f" after step {tracked.steps}" if tracked.steps else "",
            )
        elif tracked.never_steps:
            log.warning(
                "%s has not stepped once, though %d or more backward passes have written its gradients: call its "
                "step(), or that of no other optimizer in its place.",
                printable(name),
                tracked.MANY_PASSES,
            )
