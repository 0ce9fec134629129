"""Functions of torch replaced while somebody listens, and put back exactly: the one place where it is done.

A ``Patch`` is in place from its first listener to its last. Whoever replaces the same name after it holds its
shim, which then only passes on: it is left where it is, since putting the original back would undo theirs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from types import CellType
from typing import Any, Generic, TypeVar, cast

import torch
from torch._dynamo.decorators import skip

__all__ = [
    "Patch",
    "Replacement",
    "Turn",
    "beside_compiler",
    "compiler_here",
    "replace_in_cell",
    "replace_name",
    "skip",
    "untraced",
]

Listener = TypeVar("Listener")
F = TypeVar("F", bound=Callable[..., Any])


_ask = torch._C._dynamo.eval_frame.get_eval_frame_callback


def _ask_and_keep() -> object:
    """Torch 2.6 gives a reference away with each answer, until the compiler's callback, or None, has none left.

    A version between 2.6 and 2.13 that does not do so has one too many, which harms nobody.
    """
    callback = _ask()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(callback))
    return callback


# The callback of the compiler for the frames of this thread; None where it looks at none. The version is compared
# as one: "2.6" is older.
compiler_here: Callable[[], object] = _ask if torch.__version__ >= "2.13" else _ask_and_keep


def untraced(function: F) -> F:
    """The function as ``torch.compile`` leaves it alone: a compiled step or clip call leaves its graph for it.

    What ``torch.compiler.disable`` makes of a function does so too, and costs five Python calls every time it is
    called, compiled or not. Here that is paid only where the compiler is at work in this thread.
    """
    disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]

    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if compiler_here() is None else disabled(*args, **kwargs)

    # The compiler neither traces a call of it nor compiles its own frame.
    return cast("F", skip(called))


Shim = Callable[[Callable[..., Any]], Callable[..., Any]]


@skip
def beside_compiler(compiler: Any, shim: Shim, original: Callable[..., Any]) -> Callable[..., Any]:
    """A shim where the compiler is at work in this thread: that sees what the original calls, and nothing of ours.

    Where it made something of ours, numpy's arrays would be tensors, and what is noted in them would be lost.
    """

    def compiling(*args: Any, **kwargs: Any) -> Any:
        torch._C._dynamo.eval_frame.set_eval_frame(compiler)
        try:
            return original(*args, **kwargs)
        finally:
            torch._C._dynamo.eval_frame.set_eval_frame(None)

    return cast("Callable[..., Any]", torch.compiler.disable(shim(compiling)))  # type: ignore[no-untyped-call]


class Turn:
    """One thread at a time, for what is begun and ended; an interrupt cannot leave it taken for long.

    An exception that is raised while a ``with`` is being left skips what leaves it. A thread that has been
    interrupted so may enter again, and lets go of everything when it leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # which the last one too many raises
            while True:
                self._lock.release()


class Replacement:
    """Something of torch's that can be replaced, and put back as often as one likes.

    Args:
        look: gives what is there now.
        put: puts something there.
        shim: what is to be there instead of what is there now.
    """

    def __init__(self, look: Callable[[], object], put: Callable[[Any], object], shim: object) -> None:
        self._look = look
        self._put = put
        self._shim = shim
        self._original = look()

    def put(self) -> None:
        """Replace it."""
        self._put(self._shim)

    def take_back(self) -> None:
        """Put back what was there, unless it is there, or somebody has replaced it since."""
        if self._look() is self._shim:
            self._put(self._original)


class _BySubject(dict[int, tuple[Listener, ...]]):
    """Nobody listens to what it does not hold."""

    def __missing__(self, _: int) -> tuple[Listener, ...]:
        return ()


_patches: weakref.WeakSet[Patch[Any]] = weakref.WeakSet()


class Patch(Generic[Listener]):
    """Some functions of torch, seen by listeners.

    Args:
        replacements: what is to be replaced; called with the first listener.

    Attributes:
        listeners: those that listen now, a tuple that is replaced and never changed, so that a shim may walk it
            while others come and go.
        by_subject: ``id`` of what an event is about -> the listeners that listen to that, a tuple as well. A shim
            that sees events of others walks through nobody.
        changes: how often either has changed.
    """

    def __init__(self, replacements: Callable[[], Iterable[Replacement]]) -> None:
        self._replacements = replacements
        self._turn = Turn()
        self._replaced: list[Replacement] = []
        self._in_place = False
        self._subjects: dict[int, tuple[int, ...]] = {}
        self.listeners: tuple[Listener, ...] = ()
        self.by_subject: _BySubject[Listener] = _BySubject()
        self.changes = 0
        _patches.add(self)

    # An interrupt may come before any line of these. Each notes what it is about to do before it does it, and
    # undoes what may not have been done, so that a second call finds the way from wherever the first one was left.

    def listen(self, listener: Listener, subjects: Iterable[int] = ()) -> None:
        """Let one more listener see every call from now on, or an earlier one those about other subjects."""
        with self._turn:
            self.listeners = (*_without(self.listeners, listener), listener)
            self._forget(listener)
            self._subjects[id(listener)] = tuple(subjects)
            for subject in self._subjects[id(listener)]:
                self.by_subject[subject] = (*self.by_subject[subject], listener)
            self.changes += 1
            if not self._in_place:
                self._take_back()
                for replacement in self._replacements():
                    self._replaced.append(replacement)
                    replacement.put()
                self._in_place = True

    def stop_listening(self, listener: Listener) -> None:
        """Let it see no more; with the last one torch is restored exactly as it was."""
        with self._turn:
            self.listeners = _without(self.listeners, listener)
            if not self.listeners:
                self._take_back()
            self._forget(listener)
            self.changes += 1

    def forget_all(self) -> None:
        """In a forked child, such as a DataLoader's worker, nobody listens; whoever held the turn is not there."""
        self._turn = Turn()
        self._subjects = {}
        self.listeners, self.by_subject = (), _BySubject()
        self.changes += 1

    def _forget(self, listener: Listener) -> None:
        for subject in self._subjects.get(id(listener), ()):
            others = _without(self.by_subject[subject], listener)
            if others:
                self.by_subject[subject] = others
            else:
                self.by_subject.pop(subject, None)
        self._subjects.pop(id(listener), None)

    def _take_back(self) -> None:
        self._in_place = False
        while self._replaced:
            self._replaced[-1].take_back()
            self._replaced.pop()


def _without(listeners: tuple[Listener, ...], gone: Listener) -> tuple[Listener, ...]:
    return tuple(one for one in listeners if one is not gone)


def replace_name(owner: Any, name: str, shim: Callable[..., Any]) -> Replacement:
    """What a module or class has under a name of its own.

    Raises:
        KeyError: it has none, but may have inherited one.
    """
    if name not in vars(owner):
        raise KeyError(name)
    return Replacement(lambda: vars(owner).get(name), lambda value: setattr(owner, name, value), shim)


def replace_in_cell(cell: CellType, shim: Callable[..., Any]) -> Replacement:
    """What a closure holds: every alias of the function that it belongs to is seen."""
    return Replacement(lambda: cell.cell_contents, lambda value: setattr(cell, "cell_contents", value), shim)


def _after_fork_in_child() -> None:
    for patch in _patches:
        patch.forget_all()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
