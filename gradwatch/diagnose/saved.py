"""What an operation saved for its backward pass: readable from when it was made until its own backward has run."""

from __future__ import annotations

import contextlib
from typing import Any

from gradwatch.diagnose.walk import Node

__all__ = ["read_saved", "saved_names", "signed"]


def read_saved(node: Node, name: str) -> Any:
    """What an operation saved under a name; None where it saved nothing or it must not be read.

    A tensor that is packed by hooks (a checkpoint, offloading) is left alone: unpacking it a second time is the
    packer's business, and a checkpoint refuses.
    """
    # Freed, changed in place since, or (in a torch that does not tell of hooks) given out once and for all.
    with contextlib.suppress(RuntimeError, AssertionError):
        raw = getattr(node, f"_raw_saved_{name}", None)
        if getattr(raw, "unpack_hook", None) is not None:
            return None
        return getattr(node, f"_saved_{name}", None)
    return None


def saved_names(node: Node) -> list[str]:
    """Under which names an operation saved tensors."""
    return [name.removeprefix("_raw_saved_") for name in dir(node) if name.startswith("_raw_saved_")]


def signed(index: int) -> int:
    """A dimension as it was given: torch hands out one below 0 as its 64-bit pattern."""
    return index - 2**64 if index >= 2**63 else index
