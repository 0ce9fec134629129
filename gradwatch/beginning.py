"""A watch that was made and never begun: told of at the first step of its optimizer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

__all__ = ["Reminder"]

log = logging.getLogger("gradwatch")


class Reminder:
    """Says once, at the first step, that nothing is watched.

    Args:
        optimizers: those that are to be tracked.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self._told = False
        self._handles: dict[int, RemovableHandle] = {
            id(optimizer): optimizer.register_step_post_hook(self._remind) for optimizer in optimizers
        }

    def take_back(self) -> None:
        """It has begun."""
        self._told = True
        handles, self._handles = self._handles, {}
        for handle in handles.values():
            handle.remove()

    def _remind(self, optimizer: Optimizer, *_: Any) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "A gradwatch tracker was made and never begun, so that nothing is watched: write "
                "`with gradwatch.track(...) as watch:` around the loop, or call its start()."
            )
        hooks = optimizer._optimizer_step_post_hooks
        # Torch walks through these hooks now, and looks no further than the last one.
        if next(reversed(hooks)) == self._handles[id(optimizer)].id:
            self._handles.pop(id(optimizer)).remove()
