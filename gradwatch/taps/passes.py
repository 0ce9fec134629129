"""The calls of ``torch.autograd.backward``: where a backward pass of the user's begins, and where it has ended.

``loss.backward()`` looks the function up in its module at each call, so that replacing it there sees every pass
but one started by a name imported long before; for those ``gradwatch.taps.backwards`` has a way of its own. A
pass inside a pass, as a re-entrant checkpoint runs it, is a part of the outer one.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch

from gradwatch.taps.guard import untraced

__all__ = ["NO_PASS", "PassListener", "current_pass", "listen", "stop_listening"]

# What torch calls the graph task where no backward pass is running.
NO_PASS = -1

# torch's number of the graph task that runs in this thread.
_graph_task: Callable[[], int] = torch._C._current_graph_task_id


class PassListener(Protocol):
    """Told of each outermost call; neither method may raise."""

    def beginning(self) -> None:
        """A pass is about to begin."""

    def ended(self, backward_pass: int) -> None:
        """It has ended, and every gradient is where it belongs: also those that are reduced over ranks."""


_lock = threading.Lock()
_listeners: list[PassListener] = []
_undo: list[Callable[[], None]] = []
_here = threading.local()
_running: list[int] = []
# Below torch's own numbers, which count up from 0.
_numbers = itertools.count(NO_PASS - 1, -1)


def listen(listener: PassListener) -> None:
    """Tell a listener of every pass from now on."""
    with _lock:
        if not _listeners:
            _undo.append(_install())
        _listeners.append(listener)


def stop_listening(listener: PassListener) -> None:
    """Tell it no more; with the last one torch is restored exactly as it was."""
    with _lock:
        if listener in _listeners:
            _listeners.remove(listener)
        while _undo and not _listeners:
            _undo.pop()()


def current_pass() -> int:
    """The number of the pass that runs here; ``NO_PASS`` where none does."""
    # Asked first: what torch 2.6 runs for compiled autograd is of no graph task.
    own: int = getattr(_here, "backward_pass", NO_PASS)
    if own != NO_PASS:
        return own
    task = _graph_task()
    if task == NO_PASS:
        return NO_PASS
    # On a device's own thread: the pass is known where only one runs.
    running = tuple(_running)
    return running[0] if len(running) == 1 else task


def _install() -> Callable[[], None]:
    original = torch.autograd.backward

    @functools.wraps(original)
    def backward(*args: Any, **kwargs: Any) -> Any:
        if _graph_task() != NO_PASS or getattr(_here, "backward_pass", NO_PASS) != NO_PASS:
            return original(*args, **kwargs)
        return _told(original, args, kwargs)

    shim = torch.autograd.backward = untraced(backward)

    def restore() -> None:
        # Whoever has replaced it after us holds our shim, which then only passes on.
        if torch.autograd.backward is shim:
            torch.autograd.backward = original

    return restore


def _told(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    listeners = tuple(_listeners)
    for listener in listeners:
        listener.beginning()
    number = _here.backward_pass = next(_numbers)
    _running.append(number)
    try:
        returned = original(*args, **kwargs)
    finally:
        _here.backward_pass = NO_PASS
        _running.remove(number)
    for listener in listeners:
        listener.ended(number)
    return returned
