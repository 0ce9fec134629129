"""Every call of torch's clipping functions, however they were imported, and of its clipping method.

Each public function of ``torch.nn.utils.clip_grad`` is one wrapper object whose closure holds the function
that does the work. All aliases share that object, also ``from torch.nn.utils import clip_grad_norm_`` done
long before: exchanging what the closure holds is seen by every caller and is undone exactly.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import CellType, GeneratorType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad

from gradwatch.taps.guard import untraced

__all__ = ["ClipEvent", "ClipListener", "listen", "stop_listening"]

log = logging.getLogger("gradwatch")


class ClipEvent(NamedTuple):
    """One clipping call: what it was asked for.

    ``parameters`` are as they were given, one that was given twice included.
    """

    function: str
    limit: float
    norm_type: float | None
    parameters: tuple[Tensor, ...]


class ClipListener(Protocol):
    """Told of each clipping call in the process; neither method may raise."""

    def clipping(self, event: ClipEvent) -> None:
        """The call is about to change the gradients."""

    def clipped(self, event: ClipEvent, norm_returned: Tensor | None) -> None:
        """The call is done, and this is the norm that it returned."""


class _Signature(NamedTuple):
    """Where a function takes its limit and the p of its norm, by position and by name."""

    public_name: str
    limit: tuple[int, str]
    norm_type: tuple[int, str] | None = None


# By the name under which the module holds the wrapper.
_FUNCTIONS = {
    "clip_grad_norm_": _Signature("clip_grad_norm_", (1, "max_norm"), (2, "norm_type")),
    "clip_grad_value_": _Signature("clip_grad_value_", (1, "clip_value")),
    "_clip_grads_with_norm_": _Signature("clip_grads_with_norm_", (1, "max_norm")),
}

# By module, where it is loaded, and class: a method that clips the gradients of all parameters of its module.
_METHODS = {
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"): _Signature(
        "clip_grad_norm_", (1, "max_norm"), (2, "norm_type")
    ),
}

_lock = threading.Lock()
_listeners: list[ClipListener] = []
_undo: list[Callable[[], None]] = []
_inside = threading.local()


def listen(listener: ClipListener) -> None:
    """Tell a listener of every clipping call from now on."""
    with _lock:
        if not _listeners:
            _undo.extend(_install(name, signature) for name, signature in _FUNCTIONS.items())
            _undo.extend(_install_method(*where, signature) for where, signature in _METHODS.items())
        _listeners.append(listener)


def stop_listening(listener: ClipListener) -> None:
    """Tell it no more; with the last one torch is restored exactly as it was."""
    with _lock:
        if listener in _listeners:
            _listeners.remove(listener)
        while _undo and not _listeners:
            _undo.pop()()


def _install(name: str, signature: _Signature) -> Callable[[], None]:
    wrapper = getattr(clip_grad, name, None)
    cell = _cell_of(wrapper)
    if cell is None:
        return _install_in_modules(wrapper, name, signature)
    original = cell.cell_contents
    shim = cell.cell_contents = _shim(original, signature)

    def restore() -> None:
        # Whoever has exchanged it after us holds our shim, which then only passes on.
        if cell.cell_contents is shim:
            cell.cell_contents = original

    return restore


def _install_in_modules(wrapper: Any, name: str, signature: _Signature) -> Callable[[], None]:
    """Where the wrapper is built otherwise: replace the names that torch's own modules give to it."""
    if not callable(wrapper):
        log.warning("gradwatch does not see torch's %s: torch %s has no such function.", name, torch.__version__)
        return lambda: None
    log.warning(
        "gradwatch sees calls of torch's %s by the names in torch.nn.utils only, since torch %s builds it "
        "otherwise than expected: a function imported before tracking began may be missed, its norms are not.",
        signature.public_name,
        torch.__version__,
    )
    places = [
        (module, alias)
        for module in (clip_grad, torch.nn.utils)
        for alias in (name, signature.public_name)
        if getattr(module, alias, None) is wrapper
    ]
    shim = functools.wraps(wrapper)(_shim(wrapper, signature))
    for module, alias in places:
        setattr(module, alias, shim)

    def restore() -> None:
        for module, alias in places:
            setattr(module, alias, wrapper)

    return restore


def _install_method(module: str, kind: str, signature: _Signature) -> Callable[[], None]:
    owner = getattr(sys.modules.get(module), kind, None)
    original = vars(owner).get(signature.public_name) if owner is not None else None
    if original is None:
        return lambda: None

    @functools.wraps(original)
    def method(owner: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def call(_: Any, *args: Any, **kwargs: Any) -> Any:
            return original(owner, *args, **kwargs)

        return _shim(call, signature)(list(owner.parameters()), *args, **kwargs)

    setattr(owner, signature.public_name, method)
    return lambda: setattr(owner, signature.public_name, original)


def _cell_of(wrapper: Any) -> CellType | None:
    """The closure cell named ``func``, where the wrapper is built as expected."""
    code = getattr(wrapper, "__code__", None)
    if code is None or "func" not in code.co_freevars:
        return None
    cell: CellType = wrapper.__closure__[code.co_freevars.index("func")]
    return cell if callable(cell.cell_contents) else None


def _shim(original: Callable[..., Any], signature: _Signature) -> Callable[..., Any]:
    def seen(*args: Any, **kwargs: Any) -> Any:
        # clip_grad_norm_ calls clip_grads_with_norm_ itself: only the outer call is the user's.
        if getattr(_inside, "call", False):
            return original(*args, **kwargs)
        call = _read_call(args, kwargs, signature)
        if call is None:
            return original(*args, **kwargs)
        args, kwargs, event = call
        listeners = tuple(_listeners)
        _inside.call = True
        try:
            for listener in listeners:
                listener.clipping(event)
            returned = original(*args, **kwargs)
        finally:
            _inside.call = False
        for listener in listeners:
            listener.clipped(event, returned if isinstance(returned, Tensor) else None)
        return returned

    return untraced(seen)


def _read_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], signature: _Signature
) -> tuple[tuple[Any, ...], dict[str, Any], ClipEvent] | None:
    """The event of a call, and its arguments made whole again; None where it is not one that torch takes."""
    given = _argument(args, kwargs, (0, "parameters"), None)
    limit = _argument(args, kwargs, signature.limit, None)
    norm_type = _argument(args, kwargs, signature.norm_type, 2.0) if signature.norm_type else None
    try:
        # Where the limit is a tensor on a device this waits for it, as torch is about to do itself.
        limit = float(limit)
        norm_type = None if norm_type is None else float(norm_type)
    except (TypeError, ValueError):
        return None
    if not isinstance(given, (Tensor, Iterable)):
        return None
    parameters, again = _replayable(given)
    event = ClipEvent(signature.public_name, limit, norm_type, parameters)
    if args:
        return (again, *args[1:]), kwargs, event
    return args, {**kwargs, "parameters": again}, event


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], where: tuple[int, str], default: Any) -> Any:
    position, name = where
    return args[position] if position < len(args) else kwargs.get(name, default)


def _replayable(given: Tensor | Iterable[Tensor]) -> tuple[tuple[Tensor, ...], Tensor | Iterable[Tensor]]:
    """The tensors, and what to hand on: a generator would be spent by looking, so torch gets a fresh one."""
    if isinstance(given, Tensor):
        return (given,), given
    tensors = tuple(given)
    if isinstance(given, GeneratorType):
        return tensors, (tensor for tensor in tensors)
    return tensors, iter(tensors) if isinstance(given, Iterator) else given
