"""Every call of torch's clipping functions, however they were imported, and of its clipping method.

Each public function of ``torch.nn.utils.clip_grad`` is one wrapper object whose closure holds the function
that does the work. All aliases share that object, also ``from torch.nn.utils import clip_grad_norm_`` done
long before: exchanging what the closure holds is seen by every caller and is undone exactly.
"""

from __future__ import annotations

import functools
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import get_ident
from types import CellType, GeneratorType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad

from gradwatch.log import log
from gradwatch.patching import Patch, Replacement, replace_in_cell, replace_name, untraced
from gradwatch.taps.backwards import activity

__all__ = ["ClipEvent", "ClipListener", "clips"]


@dataclass(slots=True)
class ClipEvent:
    """One clipping call: what it was asked for.

    ``ids`` are the addresses of the parameters as they were given, int64, one that was given twice included: as
    bytes, whose hash is worked out once, however often they are looked up.
    """

    function: str
    limit: float
    norm_type: float | None
    ids: bytes


class ClipListener(Protocol):
    """Told of the clipping calls of its parameters, and of others in the threads that it is active in.

    Neither method may raise.
    """

    def clipping(self, event: ClipEvent) -> None:
        """The call is about to change the gradients."""

    def clipped(self, event: ClipEvent, norm_returned: Tensor | None) -> None:
        """The call is done, and this is the norm that it returned, or that it was given."""


@dataclass(frozen=True, slots=True)
class _Signature:
    """How a function takes its limit, behind the parameters, and whether the p of its norm or a norm is next."""

    public_name: str
    limit: str
    has_norm_type: bool = False
    has_norm: bool = False


# By the name under which the module holds the wrapper.
_FUNCTIONS = {
    "clip_grad_norm_": _Signature("clip_grad_norm_", "max_norm", has_norm_type=True),
    "clip_grad_value_": _Signature("clip_grad_value_", "clip_value"),
    "_clip_grads_with_norm_": _Signature("clip_grads_with_norm_", "max_norm", has_norm=True),
}

# By module, where it is loaded, and class: a method that clips the gradients of all parameters of its module.
_METHODS = {
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"): _Signature(
        "clip_grad_norm_", "max_norm", has_norm_type=True
    ),
}

_inside: set[int] = set()  # threads in which a call runs


@dataclass(frozen=True, slots=True)
class _Given:
    """What a call was given, when so many changes had been made to who listens.

    Attributes:
        changes: these.
        of_each: of the parameters that have the same listeners one; it holds nobody alive.
        strangers: some have none, or there is no parameter at all.
    """

    changes: int
    of_each: tuple[int, ...]
    strangers: bool


# By the parameters; a loop may clip others at each step.
_known: dict[bytes, _Given] = {}
_MOST_KNOWN = 64


def _install() -> Iterator[Replacement]:
    for name, signature in _FUNCTIONS.items():
        wrapper = getattr(clip_grad, name, None)
        cell = _cell_of(wrapper)
        if cell is None:
            yield from _replaced_in_modules(wrapper, name, signature)
        else:
            yield replace_in_cell(cell, _shim(cell.cell_contents, signature))
    for (module, kind), signature in _METHODS.items():
        owner = getattr(sys.modules.get(module), kind, None)
        if owner is not None and signature.public_name in vars(owner):
            yield replace_name(owner, signature.public_name, _method(owner, signature))


clips: Patch[ClipListener] = Patch(_install)


def _replaced_in_modules(wrapper: Any, name: str, signature: _Signature) -> Iterator[Replacement]:
    """Where the wrapper is built otherwise: replace the names that torch's own modules give to it."""
    if not callable(wrapper):
        log.warning("gradwatch does not see torch's %s: torch %s has no such function.", name, torch.__version__)
        return
    log.warning(
        "gradwatch sees calls of torch's %s by the names in torch.nn.utils only, since torch %s builds it "
        "otherwise than expected: a function imported before tracking began may be missed, its norms are not.",
        signature.public_name,
        torch.__version__,
    )
    shim = functools.wraps(wrapper)(_shim(wrapper, signature))
    for module in (clip_grad, torch.nn.utils):
        for alias in dict.fromkeys((name, signature.public_name)):
            if getattr(module, alias, None) is wrapper:
                yield replace_name(module, alias, shim)


def _method(owner: type, signature: _Signature) -> Callable[..., Any]:
    original = vars(owner)[signature.public_name]

    @functools.wraps(original)
    def method(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def call(_: Any, *args: Any, **kwargs: Any) -> Any:
            return original(module, *args, **kwargs)

        return _shim(call, signature)(list(module.parameters()), *args, **kwargs)

    return method


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
        thread = get_ident()
        if thread in _inside:
            return original(*args, **kwargs)
        call = _read_call(args, kwargs, signature)
        if call is None:
            return original(*args, **kwargs)
        args, kwargs, event = call
        listeners = _listeners_to(event.ids, thread)
        _inside.add(thread)
        try:
            for listener in listeners:
                listener.clipping(event)
            returned = original(*args, **kwargs)
        finally:
            _inside.discard(thread)
        # One that computes no norm is given one.
        norm = (args[2] if len(args) > 2 else kwargs.get("total_norm")) if signature.has_norm else returned
        for listener in listeners:
            listener.clipped(event, norm if isinstance(norm, Tensor) else None)
        return returned

    return untraced(seen)


def _listeners_to(ids: bytes, thread: int) -> Iterable[ClipListener]:
    """Who holds any of these, and where one is nobody's, who trains in this thread: it may be new to them."""
    known = _known.get(ids)
    if known is None or known.changes != clips.changes:
        known = _look_up(ids)
    by_subject = clips.by_subject
    if len(known.of_each) == 1 and not known.strangers:
        return by_subject[known.of_each[0]]
    found = dict.fromkeys(listener for one in known.of_each for listener in by_subject[one])
    if known.strangers:
        found |= dict.fromkeys(cast("Iterable[ClipListener]", activity.groups(thread)))
    return tuple(found)


def _look_up(ids: bytes) -> _Given:
    changes, each = clips.changes, array("q", ids)
    listeners = [clips.by_subject[one] for one in each]
    of_each = {tuple(map(id, those)): one for those, one in zip(listeners, each, strict=True) if those}
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    known = _known[ids] = _Given(changes, tuple(of_each.values()), not all(listeners) or not ids)
    return known


def _read_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], signature: _Signature
) -> tuple[tuple[Any, ...], dict[str, Any], ClipEvent] | None:
    """The event of a call, and its arguments made whole again; None where it is not one that torch takes."""
    given: Any = args[0] if args else kwargs.get("parameters")
    limit: Any = args[1] if len(args) > 1 else kwargs.get(signature.limit)
    norm_type: Any = None
    if signature.has_norm_type:
        norm_type = args[2] if len(args) > 2 else kwargs.get("norm_type", 2.0)
    try:
        # Where the limit is a tensor on a device this waits for it, as torch is about to do itself.
        limit = float(limit)
        norm_type = None if norm_type is None else float(norm_type)
    except (TypeError, ValueError):
        return None
    parameters: Iterable[Tensor] = given
    if isinstance(given, Tensor):
        parameters = (given,)
    elif not isinstance(given, (list, tuple)):
        is_generator = type(given) is GeneratorType  # as a rule, and asked at little cost
        if not is_generator and not isinstance(given, Iterable):
            return None
        parameters = tuple(given)
        if is_generator or isinstance(given, Iterator):
            # It is spent by looking, so torch gets another one; of an empty generator it warns.
            again = given if is_generator and not parameters else iter(parameters)
            args, kwargs = ((again, *args[1:]), kwargs) if args else (args, {**kwargs, "parameters": again})
    ids = array("q", map(id, parameters)).tobytes()
    return args, kwargs, ClipEvent(signature.public_name, limit, norm_type, ids)
