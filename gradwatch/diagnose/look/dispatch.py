"""Every call of a module, seen from outside of the module.

A hook on a module is a part of it: it is saved, copied and scripted with it, and torch takes other paths where
there is one. So nothing is put on any module. While somebody listens, the function behind ``nn.Module.__call__``
has other code; it stays the same function, by which torch's compiler and its tracers know a plain module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import nn

from gradwatch.patching import Patch, Replacement

__all__ = ["CallListener", "module_calls"]

_FUNCTION = nn.Module._wrapped_call_impl
_CODE = _FUNCTION.__code__

# What ``nn.Module.__call__`` does by itself.
_original: Callable[..., Any] = FunctionType(_CODE, _FUNCTION.__globals__, _FUNCTION.__name__)


class CallListener(Protocol):
    """Told of the calls of all modules; must not raise."""

    def entered(self, module: nn.Module, given: object) -> None:
        """A module is called, and given these arguments."""

    def left(self, module: nn.Module, output: Any) -> None:
        """Its call is over; one that ends in an exception is never left."""


def _seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for listener in module_calls.listeners:
        listener.entered(module, (args, kwargs))
    output = _original(module, *args, **kwargs)
    for listener in module_calls.listeners:
        listener.left(module, output)
    return output


def _wrapped_call_impl(self, *args, **kwargs):  # type: ignore[no-untyped-def]
    # Runs as a function of torch's, with the names of torch's module. What is compiled is left as it is.
    from gradwatch.diagnose.look.dispatch import _original, _seen
    from gradwatch.patching import compiler_here

    # A function while the compiler would compile what runs here.
    if torch.compiler.is_compiling() or callable(compiler_here()):
        return _original(self, *args, **kwargs)
    return _seen(self, args, kwargs)


# It bears the name of torch's file, by which the compiler does not begin a graph at it.
_WATCHED = _wrapped_call_impl.__code__.replace(co_filename=_CODE.co_filename, co_firstlineno=_CODE.co_firstlineno)


def _code() -> Iterator[Replacement]:
    yield Replacement(lambda: _FUNCTION.__code__, lambda code: setattr(_FUNCTION, "__code__", code), _WATCHED)


module_calls: Patch[CallListener] = Patch(_code)
