"""The end of a backward pass, and which parameters it wrote.

A hook on each parameter notes that its gradient was accumulated; the first one of a pass queues a callback
for the pass's end. It is queued twice, from within itself: DistributedDataParallel queues its own, which
finishes the reduction, after the first hook ran, and ours has to come after that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

__all__ = ["BackwardTap", "running_pass"]

# torch's number of the backward pass that runs in this thread; -1 where none does.
running_pass: Callable[[], int] = torch._C._current_graph_task_id


class BackwardTap:
    """Calls ``ended(slots, task)`` at the end of each backward pass that wrote a watched gradient.

    Args:
        ended: takes the slots written, in the order in which they were, and torch's number of the pass; must
            not raise.
    """

    # Passes that ended in an exception never report; their notes are dropped when newer ones push them out.
    MOST_OPEN_PASSES = 16

    def __init__(self, ended: Callable[[tuple[int, ...], int], object]) -> None:
        self._ended = ended
        self._handles: dict[int, RemovableHandle] = {}
        # Keyed by the pass, not a flag: after an exception in backward a flag would stay set.
        self._written: dict[int, list[int]] = {}

    def watch(self, parameters: Iterable[tuple[int, Tensor]]) -> tuple[int, ...]:
        """Hook (slot, parameter) pairs; those that are hooked already or need no gradient are passed over.

        Returns:
            The slots that were hooked now.
        """
        hooked = []
        for slot, parameter in parameters:
            if slot not in self._handles and parameter.requires_grad and parameter.is_leaf:
                hook = self._hook(slot)
                self._handles[slot] = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
                hooked.append(slot)
        return tuple(hooked)

    def unwatch(self, slots: Iterable[int]) -> None:
        """Remove the hooks of these slots."""
        for slot in slots:
            handle = self._handles.pop(slot, None)
            if handle is not None:
                handle.remove()

    def close(self) -> None:
        """Remove every hook."""
        self.unwatch(tuple(self._handles))
        self._written.clear()

    def _hook(self, slot: int) -> Callable[[Tensor], None]:
        written = self._written

        def accumulated(_: Tensor) -> None:
            task = running_pass()
            if task in written:
                written[task].append(slot)
            else:
                self._begin(task, slot)

        return accumulated

    def _begin(self, task: int, slot: int) -> None:
        written = self._written
        while len(written) >= self.MOST_OPEN_PASSES:
            written.pop(next(iter(written)), None)
        written[task] = [slot]
        queue = torch.autograd.Variable._execution_engine.queue_callback

        def end() -> None:
            slots = written.pop(task, None)
            if slots:
                self._ended(tuple(dict.fromkeys(slots)), task)

        try:
            queue(lambda: queue(end))
        except RuntimeError:
            # No autograd engine is at work, as in compiled autograd: the other taps measure instead.
            written.pop(task, None)
