"""Every backward pass: that it begins, which gradients it has written, and that it has ended.

``loss.backward()``, ``torch.autograd.backward`` and ``torch.autograd.grad`` all start the engine through one name
in ``torch.autograd``, whatever alias the caller has of them. A hook on each parameter notes that a pass has
written its gradient; when the engine returns, also what is reduced over ranks is where it belongs. A pass inside a
pass, as a re-entrant checkpoint runs it, is a part of the outer one.

A pass costs a tracker that it writes nothing of nothing at all: notes are kept by thread, and only those who were
written are called when it ends. Only trackers that were written of late in the same thread hear that one begins.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from threading import get_ident
from types import FrameType
from typing import Any, Protocol

import torch

from gradwatch.patching import (
    Patch,
    Replacement,
    beside_compiler,
    compiler_here,
    replace_name,
    skip,
)

__all__ = [
    "NO_PASS",
    "Pass",
    "PassListener",
    "activity",
    "current_pass",
    "here",
    "is_alone",
    "pass_elsewhere",
    "passes",
]

# What torch calls the graph task where no backward pass is running.
NO_PASS = -1

# What starts the autograd engine, as ``torch.autograd`` calls it.
_ENGINE = "_engine_run_backward"

_group: Callable[[PassListener], RunListener] = attrgetter("group")

# torch's number of the graph task that runs in this thread.
_graph_task: Callable[[], int] = torch._C._current_graph_task_id


class RunListener(Protocol):
    """Who looks at what the engine starts from; it must not raise."""

    def starting_from(
        self, roots: Sequence[object], gradients: Sequence[object], accumulates: bool
    ) -> Callable[[], None] | None:
        """The engine starts from these; what is returned is called when it is over."""


class PassListener(Protocol):
    """Who has hooks on parameters; no method may raise.

    Attributes:
        compares: it has parameters without a hook, and compares them when a pass ends.
        group: what it belongs to, which is called once however many of it there are.
    """

    @property
    def compares(self) -> bool:
        """Whether there are such parameters."""

    @property
    def group(self) -> RunListener:
        """The tracker, for an optimizer of it."""

    def beginning(self, alone: bool) -> None:
        """A pass is about to begin in a thread that has written some of its parameters of late.

        Args:
            alone: no other pass is running, in any thread.
        """

    def ended(self, columns: frozenset[int], one: Pass) -> None:
        """A pass has ended that wrote the gradients of these columns."""


# Where a pass was called, and of each listener of a group that it has written which one it is, and the columns.
Origin = tuple[int, frozenset[tuple[int, frozenset[int]]]]


class Pass:
    """A pass that runs: its number, the columns written so far, by listener, and whether an exception ended it."""

    __slots__ = ("_origins", "_reported", "failed", "number", "written")

    # Numbered below torch's own graph tasks, which count up from 0.
    _numbers = itertools.count(NO_PASS - 1, -1)

    def __init__(self, number: int | None = None) -> None:
        self.number = next(self._numbers) if number is None else number
        self.written: defaultdict[PassListener, set[int]] = defaultdict(set)
        self.failed = False
        self._reported: dict[PassListener, frozenset[int]] = {}
        self._origins: dict[RunListener, Origin] | None = None

    def report(self) -> None:
        """Tell each listener what it wrote."""
        reported = self._reported
        for listener in self.written:
            reported[listener] = frozenset(self.written[listener])
        for listener in reported:
            listener.ended(reported[listener], self)

    def origin(self, group: RunListener) -> Origin:
        """What tells the losses of a tracker apart: where a pass is called, and all that it writes.

        To be asked while the pass is reported; worked out once for all who ask.
        """
        if self._origins is None:
            site, of_each = _call_site(), defaultdict[RunListener, list[tuple[int, frozenset[int]]]](list)
            for listener, columns in self._reported.items():
                of_each[listener.group].append((id(listener), columns))
            self._origins = {one: (site, frozenset(written)) for one, written in of_each.items()}
        return self._origins[group]


def _call_site(deepest: int = 32) -> int:
    """Where in the program this is called from."""
    places: list[tuple[int, int]] = []
    frame: FrameType | None = sys._getframe(1)
    # Our own may be at another instruction where a pass has failed.
    while frame is not None and frame.f_globals.get("__name__", "").startswith("gradwatch."):
        frame = frame.f_back
    while frame is not None and len(places) < deepest:
        places.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return hash(tuple(places))


# By thread, the pass that runs in it; and the one that runs in this thread.
_running: dict[int, Pass] = {}
here = threading.local()

# Passes that were not seen to begin, by torch's number of the graph task.
_unseen: dict[int, Pass] = {}
_MOST_UNSEEN = 16


class _Activity:
    """Who hears that a pass begins in a thread: listeners for so many passes after they were written there."""

    PASSES = 16

    def __init__(self) -> None:
        self._left: dict[int, dict[PassListener, int]] = {}

    def keep(self, listener: PassListener) -> int:
        """It was written, or steps, in this thread, whose number is given back."""
        thread = get_ident()
        self._left.setdefault(thread, {})[listener] = self.PASSES
        return thread

    def forget(self, listener: PassListener) -> None:
        for thread, left in tuple(self._left.items()):
            left.pop(listener, None)
            if not left:
                self._left.pop(thread, None)

    def listeners(self, thread: int, one_more: bool) -> Sequence[PassListener]:
        """Who hears of what begins in a thread, where it is one more pass: whoever it writes is kept anew."""
        left = self._left.get(thread)
        if left is None:
            return ()
        listeners = tuple(left)
        if one_more:
            for listener in listeners:
                passes = left.get(listener, 0)
                if passes:
                    left[listener] = passes - 1
                else:
                    self._leave(thread, left, listener)
        return listeners

    def groups(self, thread: int) -> Iterable[RunListener]:
        """The trackers that hear of what begins in a thread."""
        return _groups(self.listeners(thread, one_more=False))

    def _leave(self, thread: int, left: dict[PassListener, int], gone: PassListener) -> None:
        """It hears no more, unless it compares and others of its tracker are at work: the next pass may be its."""
        if gone.compares and any(passes and one.group is gone.group for one, passes in tuple(left.items())):
            return
        left.pop(gone, None)
        if not left:
            self._left.pop(thread, None)


def _groups(listeners: Sequence[PassListener]) -> Iterable[RunListener]:
    """The trackers that they are of, each once."""
    return dict.fromkeys(map(_group, listeners))


activity = _Activity()


def current_pass() -> int:
    """The number of the pass that runs in this thread; ``NO_PASS`` where none does."""
    here = _running.get(get_ident())
    if here is not None:
        return here.number
    task = _graph_task()
    if task == NO_PASS:
        return NO_PASS
    one = _only_one()
    return task if one is None else one.number


def is_alone() -> bool:
    """Whether no pass is running, in any thread."""
    return not _running


def _only_one() -> Pass | None:
    """On a device's own thread the pass is known where only one runs."""
    running = tuple(_running.values())
    return running[0] if len(running) == 1 else None


def _install() -> Iterable[Replacement]:
    yield replace_name(torch.autograd, _ENGINE, _shim(vars(torch.autograd)[_ENGINE]))


def _shim(original: Callable[..., Any]) -> Callable[..., Any]:
    def run(outputs: Sequence[object], *args: Any, **kwargs: Any) -> Any:
        if (compiler := compiler_here()) is not None:
            return beside_compiler(compiler, _shim, original)(outputs, *args, **kwargs)
        thread = get_ident()
        accumulates = "accumulate_grad" not in kwargs or bool(kwargs["accumulate_grad"])
        is_pass = accumulates and thread not in _running and _graph_task() == NO_PASS
        listeners = activity.listeners(thread, is_pass)
        if not listeners and is_pass:
            return _seen(thread, (), original, outputs, args, kwargs)
        gradients = args[0] if args else kwargs.get("grad_tensors", ())
        ends = [g.starting_from(outputs, gradients, accumulates) for g in _groups(listeners)]
        try:
            if is_pass:
                return _seen(thread, listeners, original, outputs, args, kwargs)
            return original(outputs, *args, **kwargs)
        finally:
            for end in filter(None, reversed(ends)):
                end()

    return skip(run)


def _seen(
    thread: int,
    listeners: Sequence[PassListener],
    original: Callable[..., Any],
    outputs: Sequence[object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    alone = not _running
    for listener in listeners:
        listener.beginning(alone)
    one = here.one = _running[thread] = Pass()
    try:
        return original(outputs, *args, **kwargs)
    except BaseException:
        # What it has written before that is there, and a loop may step with it.
        one.failed = True
        raise
    finally:
        del _running[thread]
        here.one = None
        for listener in listeners:
            if listener.compares:
                one.written.setdefault(listener, set())
        one.report()


# Seen as long as anybody has hooks.
passes: Patch[object] = Patch(_install)


def pass_elsewhere() -> Pass:
    """The pass that a hook belongs to which runs in another thread than the pass began in, or in one unseen."""
    only = _only_one()
    if only is not None:
        return only
    task = _graph_task()
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
