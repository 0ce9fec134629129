"""A watch that was made and never begun: told of at the first step of its optimizer."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from gradwatch.log import log
from gradwatch.taps.step_hooks import StepHooks

__all__ = ["Reminder"]


class Reminder:
    """Says once, at the first step, that nothing is watched.

    Args:
        optimizers: those that are to be tracked.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self._told = False
        # Optimizers hold this: one that nobody else holds must not live on.
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._hook = self._remind
        for optimizer in optimizers:
            StepHooks.add(optimizer, None, self._hook)

    def take_back(self) -> None:
        """It has begun."""
        self._told = True
        for optimizer in (reference() for reference in self._optimizers):
            if optimizer is not None:
                StepHooks.remove(optimizer, None, self._hook)

    def _remind(self, *_: Any) -> None:
        told = self._told
        self.take_back()
        if not told:
            log.warning(
                "A gradwatch tracker was made and never begun, so that nothing is watched: write "
                "`with gradwatch.track(...) as watch:` around the loop, or call its start()."
            )
