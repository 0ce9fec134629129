"""Every run of the autograd engine: what it starts from, before it starts, what it writes, and that it is over.

``Tensor.backward``, ``torch.autograd.backward`` and ``torch.autograd.grad`` all call one function through one
name in ``torch.autograd``, whatever alias the caller has of them, and so do the libraries that wrap them. While
somebody listens, that name holds a shim; torch's own tracing exchanges the same name.

A run that adds to ``.grad`` is a backward pass. One inside another, as a re-entrant checkpoint makes it, is a part
of the outer one.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from typing import Any, Protocol

import torch

from gradwatch.patching import Patch, Replacement, replace_name

__all__ = ["NO_PASS", "Pass", "RunListener", "Writer", "current_pass", "graph_task", "here", "only_pass", "runs"]

_NAME = "_engine_run_backward"

# What torch calls the graph task where no backward pass is running.
NO_PASS = -1

# torch's number of the graph task that runs in this thread.
graph_task: Callable[[], int] = torch._C._current_graph_task_id


class RunListener(Protocol):
    """Told of each run in the process."""

    def began(
        self, roots: Sequence[object], gradients: Sequence[object], one: Pass | None
    ) -> Callable[[], None] | None:
        """A run starts from these tensors (or gradient edges) with these gradients.

        Args:
            roots: the tensors or edges.
            gradients: one for each.
            one: the backward pass that it is; None for a part of one, and for a run that gives its gradients out,
                as ``torch.autograd.grad`` does.

        Neither this nor the function that it returns, which is called when the run is over, may raise.
        """


class Writer(Protocol):
    """Somebody whose gradients a pass writes."""

    def ended(self, columns: frozenset[int], one: Pass) -> None:
        """A pass has ended that wrote the gradients of these columns; it must not raise."""


class Pass:
    """A backward pass.

    Attributes:
        number: its number.
        alone: no other pass was running when it began, in any thread.
        written: the columns written so far, by whose they are.
        failed: an exception has ended it. What it has written before that is there, and a loop may step with it.
    """

    __slots__ = ("alone", "failed", "number", "written")

    # Numbered below torch's own graph tasks, which count up from 0.
    _numbers = itertools.count(NO_PASS - 1, -1)

    def __init__(self, number: int | None = None) -> None:
        self.number = next(self._numbers) if number is None else number
        self.alone = not _running
        self.written: defaultdict[Writer, set[int]] = defaultdict(set)
        self.failed = False

    def report(self) -> None:
        """Tell everybody what it wrote."""
        for writer, columns in self.written.items():
            writer.ended(frozenset(columns), self)


# By thread, the pass that runs in it; and the one that runs in this thread.
_running: dict[int, Pass] = {}
here = threading.local()


def current_pass() -> int:
    """The number of the pass that runs in this thread; ``NO_PASS`` where none does."""
    one = _running.get(get_ident())
    if one is not None:
        return one.number
    task = graph_task()
    if task == NO_PASS:
        return NO_PASS
    only = only_pass()
    return task if only is None else only.number


def only_pass() -> Pass | None:
    """The one pass that runs: on a device's own thread, where none began, it is the one there."""
    running = tuple(_running.values())
    return running[0] if len(running) == 1 else None


def _replace() -> Iterator[Replacement]:
    original: Callable[..., Any] = vars(torch.autograd)[_NAME]

    def run(outputs: Sequence[object], *args: Any, **kwargs: Any) -> Any:
        thread = get_ident()
        gradients = args[0] if args else kwargs.get("grad_tensors", ())
        is_pass = kwargs.get("accumulate_grad", True) and thread not in _running and graph_task() == NO_PASS
        one = Pass() if is_pass else None
        ends = [listener.began(outputs, gradients, one) for listener in runs.listeners]
        try:
            if one is None:
                return original(outputs, *args, **kwargs)
            here.one = _running[thread] = one
            return original(outputs, *args, **kwargs)
        except BaseException:
            if one is not None:
                one.failed = True
            raise
        finally:
            if one is not None:
                _running.pop(thread, None)
                here.one = None
                one.report()
            for end in reversed(ends):
                if end is not None:
                    end()

    yield replace_name(torch.autograd, _NAME, run)


runs: Patch[RunListener] = Patch(_replace)
