"""Functions of torch replaced while somebody listens, and put back exactly: the one place where it is done.

A ``Patch`` is in place from its first listener to its last. Whoever replaces the same name after it holds its
shim, which then only passes on: it is left where it is, since putting the original back would undo theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import CellType
from typing import Any, Generic, TypeVar, cast

import torch
from torch._dynamo.decorators import skip

__all__ = ["Patch", "Undo", "replace_in_cell", "replace_name", "untraced"]

Undo = Callable[[], None]
Listener = TypeVar("Listener")
F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F) -> F:
    """The function as ``torch.compile`` leaves it alone: a compiled step or clip call leaves its graph for it.

    What ``torch.compiler.disable`` makes of a function does so too, and costs five Python calls every time it is
    called, compiled or not. Here that is paid only where the compiler is at work in this thread.
    """
    disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    # None where no compiler looks at the frames of this thread.
    compiler = torch._C._dynamo.eval_frame.get_eval_frame_callback

    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if compiler() is None else disabled(*args, **kwargs)

    # The compiler neither traces a call of it nor compiles its own frame.
    return cast("F", skip(called))


class Patch(Generic[Listener]):
    """Some functions of torch, seen by listeners.

    Args:
        install: puts the shims in place; gives back what undoes it. Called with the first listener.

    Attributes:
        listeners: those that listen now, a tuple that is replaced and never changed, so that a shim may walk it
            while others come and go.
    """

    def __init__(self, install: Callable[[], Iterable[Undo]]) -> None:
        self._install = install
        self._lock = threading.Lock()
        self._undo: list[Undo] = []
        self.listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> None:
        """Let one more listener see every call from now on."""
        with self._lock:
            if not self.listeners:
                self._undo.extend(self._install())
            self.listeners = (*self.listeners, listener)

    def stop_listening(self, listener: Listener) -> None:
        """Let it see no more; with the last one torch is restored exactly as it was."""
        with self._lock:
            self.listeners = tuple(one for one in self.listeners if one is not listener)
            while self._undo and not self.listeners:
                self._undo.pop()()


def replace_name(owner: Any, name: str, shim: Callable[..., Any]) -> Undo:
    """Replace what a module or class has under a name of its own."""
    original = vars(owner)[name]
    setattr(owner, name, shim)

    def restore() -> None:
        if vars(owner).get(name) is shim:
            setattr(owner, name, original)

    return restore


def replace_in_cell(cell: CellType, shim: Callable[..., Any]) -> Undo:
    """Replace what a closure holds: every alias of the function that it belongs to is seen."""
    original = cell.cell_contents
    cell.cell_contents = shim

    def restore() -> None:
        if cell.cell_contents is shim:
            cell.cell_contents = original

    return restore
