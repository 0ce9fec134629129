"""What a model is saved as, as plain bytes: by ``torch.save``, and by a pickle of the whole module."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["saved"]


def saved(*things: Any) -> dict[str, bytes | str]:
    """All modules in some things, each in all the ways in which one is saved; in words where it cannot be."""
    modules = [module for thing in things for module in _modules(thing)]
    return {
        f"{index} {name}": _bytes(way, module)
        for index, module in enumerate(modules)
        for name, way in (("state", _state), ("pickle", _pickle), ("copy", _copy))
    }


def _modules(thing: Any) -> list[nn.Module]:
    if isinstance(thing, nn.Module):
        return [thing]
    values = thing.values() if isinstance(thing, Mapping) else thing if isinstance(thing, (list, tuple)) else ()
    return [module for value in values for module in _modules(value)]


def _bytes(way: Any, module: nn.Module) -> bytes | str:
    try:
        return bytes(way(module))
    except Exception as error:  # a class inside a function: no way to save it, with or without tracking
        return type(error).__name__


def _state(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    return buffer.getvalue()


def _copy(module: nn.Module) -> bytes:
    return _pickle(copy.deepcopy(module))


def _pickle(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(module)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    """Names storages by what they hold: torch names them by their address, which no two runs have in common.

    A class inside a function is named by its name, so that what is of it can be pickled at all.
    """

    def persistent_id(self, thing: Any) -> Any:
        if isinstance(thing, (torch.UntypedStorage, torch.TypedStorage)):
            untyped = thing if isinstance(thing, torch.UntypedStorage) else thing.untyped()
            return "storage", str(thing.device), _raw(untyped)
        if isinstance(thing, type) and "<locals>" in thing.__qualname__:
            return "class", thing.__qualname__
        return None


def _raw(storage: torch.UntypedStorage) -> bytes:
    return torch.tensor([], dtype=torch.uint8).set_(storage.cpu()).numpy().tobytes()
