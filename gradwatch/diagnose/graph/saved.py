"""What an operation saved for its backward pass: readable from when it was made until its own backward has run."""

from __future__ import annotations

from typing import Any

import torch

from gradwatch.diagnose.graph.walk import Node

__all__ = ["is_packed", "read_saved", "saved_names", "signed"]

# Torch 2.6 does not.
_TELLS_OF_HOOKS = hasattr(torch._C._autograd.SavedTensor, "unpack_hook")


def read_saved(node: Node, name: str) -> Any:
    """What an operation saved under a name; None where it saved nothing or it must not be read.

    A tensor that is packed by hooks (a checkpoint, offloading) is left alone: unpacking it a second time is the
    packer's business, and a checkpoint refuses.
    """
    try:
        return None if _is_packed(node, name) else getattr(node, f"_saved_{name}", None)
    except Exception:
        # Freed, changed in place since, or, in a torch that does not tell of hooks, given out once and for all:
        # hooks may raise anything.
        return None


def saved_names(node: Node) -> list[str]:
    """Under which names an operation saved tensors."""
    return [name.removeprefix("_raw_saved_") for name in dir(node) if name.startswith("_raw_saved_")]


def is_packed(node: Node) -> bool:
    """Whether hooks pack some of what an operation saved, or it is not there any more.

    In a torch that does not tell of hooks: whether some of it is not given out a second time, as by a checkpoint.
    """
    try:
        if _TELLS_OF_HOOKS:
            return any(_is_packed(node, name) for name in saved_names(node))
        for name in saved_names(node):
            getattr(node, f"_saved_{name}")
    except Exception:  # as in read_saved
        return True
    return False


def signed(index: int) -> int:
    """A dimension as it was given: torch hands out one below 0 as its 64-bit pattern."""
    return index - 2**64 if index >= 2**63 else index


def _is_packed(node: Node, name: str) -> bool:
    raw = getattr(node, f"_raw_saved_{name}", None)
    if isinstance(raw, tuple):
        return any(getattr(one, "unpack_hook", None) is not None for one in raw)
    return getattr(raw, "unpack_hook", None) is not None
