"""Hooks on parameters: each notes for the pass that runs that it has written the gradient.

When the pass is over, also what is reduced over ranks is where it belongs: only then is told what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from gradwatch.engine import NO_PASS, Pass, Writer, graph_task, here, only_pass

__all__ = ["GradientHooks"]


class GradientHooks:
    """The hooks on the parameters of one optimizer, by column.

    A hook costs a microsecond a pass, ten times what it costs to compare a gradient before a pass and after it. So
    no more than ``MOST`` parameters are hooked, spread evenly: enough to tell that a pass is one of theirs.

    Args:
        writer: what is called at the end of each pass that wrote one of them.
        accumulator: the tensor through which a parameter gets its gradient, that parameter itself as a rule; None
            where a hook on it would do harm.

    Attributes:
        waiting: columns that cannot be hooked now: they need no gradient, or have no shape yet.
        unhooked: columns that are compared instead, before a pass and after it.
    """

    MOST = 64

    def __init__(self, writer: Writer, accumulator: Callable[[Tensor], Tensor | None]) -> None:
        self._writer = writer
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
            note = _noting(self._writer, column)
            self._hooked[column] = leaf, note
            leaf.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
        return True


def _noting(writer: Writer, column: int) -> Callable[[Tensor], None]:
    of_this_thread = here

    def written(_: Tensor) -> None:
        # A thread's own attribute, which compiled autograd can trace, unlike the number of the thread.
        one = getattr(of_this_thread, "one", None) or _pass_elsewhere()
        one.written[writer].add(column)

    return written


# Passes that were not seen to begin, by torch's number of the graph task.
_unseen: dict[int, Pass] = {}
_MOST_UNSEEN = 16


def _pass_elsewhere() -> Pass:
    """The pass that a hook belongs to which runs in another thread than the pass began in, or in one unseen."""
    only = only_pass()
    if only is not None:
        return only
    task = graph_task()
    if task == NO_PASS:
        # No autograd engine is at work, as in compiled autograd of torch 2.6: clip call and step measure instead.
        return Pass(NO_PASS)
    one = _unseen.get(task)
    if one is None:
        while len(_unseen) >= _MOST_UNSEEN:
            # Passes that ended in an exception never report.
            _unseen.pop(next(iter(_unseen)), None)
        one = _unseen[task] = Pass(task)
        _report_at_the_end(task)
    return one


def _report_at_the_end(task: int) -> None:
    """Queued twice, from within itself: DistributedDataParallel queues its own end of the reduction meanwhile."""
    queue = torch.autograd.Variable._execution_engine.queue_callback

    def end() -> None:
        one = _unseen.pop(task, None)
        if one is not None:
            one.report()

    try:
        queue(lambda: queue(end))
    except RuntimeError:
        _unseen.pop(task, None)
