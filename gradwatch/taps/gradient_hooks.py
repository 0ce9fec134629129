"""Hooks on parameters: each notes for the pass that runs that it has written the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from torch import Tensor
from torch.nn.parameter import is_lazy

from gradwatch.taps.backwards import PassListener, here, pass_elsewhere

__all__ = ["GradientHooks"]

_requires_grad = attrgetter("requires_grad")


class GradientHooks:
    """The hooks on the parameters of one listener, by column.

    A hook costs a microsecond a pass, ten times what it costs to compare a gradient before a pass and after it. So
    no more than ``MOST`` parameters are hooked, spread evenly: enough to tell that a pass is one of theirs.

    Args:
        listener: what is called at the end of each pass that wrote one of them.
        accumulator: the tensor through which a parameter gets its gradient, that parameter itself as a rule; None
            where a hook on it would do harm.

    Attributes:
        waiting: columns that cannot be hooked now: they need no gradient, or have no shape yet.
        unhooked: columns that are compared instead, before a pass and after it.
    """

    MOST = 64

    def __init__(self, listener: PassListener, accumulator: Callable[[Tensor], Tensor | None]) -> None:
        self._listener = listener
        self._accumulator = accumulator
        # By column what is hooked, and the hook: noted before it is there, so that an interrupt loses none.
        self._hooked: dict[int, tuple[Tensor, Callable[[Tensor], None]]] = {}
        self._parameters: list[Tensor] = []
        self.waiting: list[int] = []
        self.unhooked: frozenset[int] = frozenset()

    def watch(self, parameters: Sequence[Tensor]) -> None:
        """Hook these, in the place of all that were hooked before."""
        self.close()
        self._parameters = list(parameters)
        every = -(-len(self._parameters) // self.MOST)
        self.waiting = list(range(0, len(self._parameters), max(every, 1)))
        self.unhooked = frozenset(range(len(self._parameters))).difference(self.waiting)
        self.renew()

    def renew(self) -> None:
        """Hook what can be hooked by now."""
        # Of a model that is frozen as a whole this is asked at each pass.
        if any(map(_requires_grad, map(self._parameters.__getitem__, self.waiting))):
            self.waiting = [column for column in self.waiting if not self._hook(column)]

    def close(self) -> None:
        """Remove every hook."""
        while self._hooked:
            column, (leaf, note) = next(iter(self._hooked.items()))
            hooks: dict[int, object] = leaf._post_accumulate_grad_hooks or {}
            for number in [number for number, hook in tuple(hooks.items()) if hook is note]:
                hooks.pop(number, None)
            self._hooked.pop(column, None)

    def _hook(self, column: int) -> bool:
        parameter = self._parameters[column]
        if is_lazy(parameter) or not (parameter.requires_grad and parameter.is_leaf):
            return False
        leaf = self._accumulator(parameter)
        if leaf is None:
            self.unhooked |= {column}
        else:
            note = _noting(self._listener, column)
            self._hooked[column] = leaf, note
            leaf.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
        return True


def _noting(listener: PassListener, column: int) -> Callable[[Tensor], None]:
    of_this_thread = here

    def written(_: Tensor) -> None:
        # A thread's own attribute, which compiled autograd can trace, unlike the number of the thread.
        one = getattr(of_this_thread, "one", None) or pass_elsewhere()
        one.written[listener].add(column)

    return written
