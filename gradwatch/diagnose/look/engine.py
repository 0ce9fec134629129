"""Every run of the autograd engine: what it starts from, before it starts, and that it is over.

``Tensor.backward``, ``torch.autograd.backward`` and ``torch.autograd.grad`` all call one function through one
name in ``torch.autograd``, whatever alias the caller has of them, and so do the libraries that wrap them. While
somebody listens, that name holds a shim; torch's own tracing exchanges the same name.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

__all__ = ["RunListener", "listen", "stop_listening"]

_NAME = "_engine_run_backward"
_lock = threading.Lock()
_listeners: list[RunListener] = []
_installed: list[tuple[Callable[..., Any], Callable[..., Any]]] = []


class RunListener(Protocol):
    """Told of each run in the process."""

    def began(
        self, roots: Sequence[object], gradients: Sequence[object], accumulates: bool = True
    ) -> Callable[[], None] | None:
        """A run starts from these tensors (or gradient edges) with these gradients.

        It ``accumulates``, as ``backward`` does, or gives its gradients out, as ``torch.autograd.grad`` does.
        Neither this nor the function that it returns, which is called when the run is over, may raise.
        """


def listen(listener: RunListener) -> None:
    """Tell a listener of every run from now on.

    Raises:
        RuntimeError: this torch starts its engine otherwise than expected, so that no run can be seen.
    """
    with _lock:
        if not _installed:
            original = getattr(torch.autograd, _NAME, None)
            if not callable(original):
                raise RuntimeError(
                    f"torch {torch.__version__} has no torch.autograd.{_NAME}: no backward can be seen"
                )
            shim = _shim(original)
            setattr(torch.autograd, _NAME, shim)
            _installed.append((shim, original))
        _listeners.append(listener)


def stop_listening(listener: RunListener) -> None:
    """Tell it no more; with the last one torch is restored as it was."""
    with _lock:
        if listener in _listeners:
            _listeners.remove(listener)
        if _installed and not _listeners:
            shim, original = _installed.pop()
            # Whoever exchanged the name after us holds our shim, which now only passes on.
            if getattr(torch.autograd, _NAME) is shim:
                setattr(torch.autograd, _NAME, original)


def _after_fork_in_child() -> None:
    """Nobody asks for what a forked child, such as a DataLoader's worker, runs.

    Another thread may have held the lock when it was forked.
    """
    global _lock
    _lock = threading.Lock()
    _listeners.clear()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _shim(original: Callable[..., Any]) -> Callable[..., Any]:
    def run(outputs: Sequence[object], *args: Any, **kwargs: Any) -> Any:
        gradients = args[0] if args else kwargs.get("grad_tensors", ())
        accumulates = bool(kwargs.get("accumulate_grad", True))
        begun = [listener.began(outputs, gradients, accumulates) for listener in tuple(_listeners)]
        endings = [end for end in begun if end is not None]
        try:
            return original(outputs, *args, **kwargs)
        finally:
            for end in reversed(endings):
                end()

    return run
