"""How much memory is kept by some objects: of all that can be reached from them."""

from __future__ import annotations

import gc
import sys
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

__all__ = ["reachable_bytes"]

# What is there whatever is kept.
_NOT_KEPT = (type, ModuleType, CodeType, BuiltinFunctionType)


def reachable_bytes(*roots: object, but: tuple[type, ...] = ()) -> int:
    """Bytes of the roots and of all that they keep, each object once; code, classes and modules are not counted.

    Args:
        roots: where to begin.
        but: classes whose instances are passed over.
    """
    gc.collect()
    seen: set[int] = set()
    waiting, total = list(roots), 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (*_NOT_KEPT, *but)):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        waiting += _kept_by(thing)
    return total


def _kept_by(thing: object) -> list[object]:
    if isinstance(thing, FunctionType):
        # Not its globals: they are those of a whole module.
        return [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
    return list(gc.get_referents(thing))
