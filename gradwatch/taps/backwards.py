"""Which gradients a backward pass has written, and that it has ended.

A hook on each parameter notes that its gradient was accumulated. Where the pass was begun by a call that
``gradwatch.taps.passes`` sees, it ends with that call. Where it was not, the first hook queues a callback for the
pass's end, and queues it twice, from within itself: DistributedDataParallel queues its own, which finishes the
reduction, after the first hook ran, and ours has to come after that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from gradwatch.measure.parts import version_of
from gradwatch.taps.passes import NO_PASS, current_pass

__all__ = ["BackwardTap"]


class BackwardTap:
    """Calls ``ended(slots, backward_pass)`` at the end of each backward pass that wrote a watched gradient.

    Args:
        ended: takes the slots written, in the order in which they were, and the number of the pass; must not
            raise.
        accumulator: the tensor through which a parameter gets its gradient, that parameter itself as a rule; None
            where a hook on it would do harm.
    """

    # Passes that ended in an exception never report; their notes are dropped when newer ones push them out.
    MOST_OPEN_PASSES = 16

    def __init__(
        self,
        ended: Callable[[tuple[int, ...], int], object],
        accumulator: Callable[[Tensor], Tensor | None] = lambda parameter: parameter,
    ) -> None:
        self._ended = ended
        self._accumulator = accumulator
        # Those that are not hooked, with identity and version of their gradients when the pass began.
        self._compared: dict[int, tuple[Tensor, tuple[int, int]]] = {}
        self._handles: dict[int, RemovableHandle] = {}
        # Keyed by the pass, not a flag: after an exception in backward a flag would stay set.
        self._written: dict[int, list[int]] = {}

    def watch(self, parameters: Iterable[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
        """Hook (slot, parameter) pairs, each once.

        Returns:
            Those that need no gradient now, or have no shape yet, and cannot be hooked until they do.
        """
        frozen = []
        for slot, parameter in parameters:
            if is_lazy(parameter) or not (parameter.requires_grad and parameter.is_leaf):
                frozen.append((slot, parameter))
            elif slot not in self._handles:
                self._watch_one(slot, parameter)
        return frozen

    def _watch_one(self, slot: int, parameter: Tensor) -> None:
        leaf = self._accumulator(parameter)
        if leaf is None:
            self._compared[slot] = (parameter, _state_of(parameter))
        else:
            hook = self._hook(slot)
            self._handles[slot] = leaf.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def unwatch(self, slots: Iterable[int]) -> None:
        """Remove the hooks of these slots."""
        for slot in slots:
            handle = self._handles.pop(slot, None)
            if handle is not None:
                handle.remove()
            self._compared.pop(slot, None)

    def close(self) -> None:
        """Remove every hook."""
        self.unwatch((*self._handles, *self._compared))
        self._written.clear()

    def beginning(self) -> None:
        """A pass is about to begin: look at what is not hooked, to see afterwards what it wrote."""
        for slot, (parameter, _) in self._compared.items():
            self._compared[slot] = (parameter, _state_of(parameter))

    def ended(self, backward_pass: int) -> None:
        """A pass has ended: tell what it wrote, where it wrote anything."""
        slots = self._written.pop(backward_pass, [])
        slots += [slot for slot, (parameter, state) in self._compared.items() if _state_of(parameter) != state]
        if slots:
            self._ended(tuple(dict.fromkeys(slots)), backward_pass)

    def _hook(self, slot: int) -> Callable[[Tensor], None]:
        written = self._written

        def accumulated(_: Tensor) -> None:
            backward_pass = current_pass()
            if backward_pass in written:
                written[backward_pass].append(slot)
            else:
                self._begin(backward_pass, slot)

        return accumulated

    def _begin(self, backward_pass: int, slot: int) -> None:
        written = self._written
        while len(written) >= self.MOST_OPEN_PASSES:
            written.pop(next(iter(written)), None)
        written[backward_pass] = [slot]
        if backward_pass > NO_PASS:
            self._queue_end(backward_pass)

    def _queue_end(self, backward_pass: int) -> None:
        queue = torch.autograd.Variable._execution_engine.queue_callback
        try:
            queue(lambda: queue(lambda: self.ended(backward_pass)))
        except RuntimeError:
            # No autograd engine is at work, as in compiled autograd: the other taps measure instead.
            self._written.pop(backward_pass, None)


def _state_of(parameter: Tensor) -> tuple[int, int]:
    gradient = parameter.grad
    return (0, 0) if gradient is None else (id(gradient), version_of(gradient))
