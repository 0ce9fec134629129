"""A DTensor's part on this rank, and what can be said of it without asking other ranks.

Nothing of ``torch.distributed`` is imported here: a DTensor has brought its module along.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["dtensor_type", "on_this_rank", "version_of", "versions_of", "whole_number"]

# In place of versions that torch does not count. They go down, so that none follows another as a version would.
_unlike_any = itertools.count(-2, -1)


def dtensor_type() -> Any:
    """The class, where anybody has imported it; None where there can be no DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return None if module is None else module.DTensor


def on_this_rank(tensor: Tensor) -> Tensor:
    """A DTensor's part on this rank, any other tensor itself; no communication."""
    kind = dtensor_type()
    if kind is None or not isinstance(tensor, kind):
        return tensor
    with torch.no_grad():
        local = cast("Any", tensor).to_local()
    # The result of a collective that may be under way still: to be waited for in the order of the stream.
    wait = getattr(local, "wait", None)
    return cast("Tensor", local if wait is None else wait())


def whole_number(number: Tensor) -> Tensor | None:
    """A number that torch has computed; None where each rank has only a part of it."""
    if type(number) is Tensor:
        return number
    placements = getattr(number, "placements", ())
    return on_this_rank(number) if all(placement.is_replicate() for placement in placements) else None


def version_of(gradient: Tensor) -> int:
    """A number that every change of the tensor in place raises, as far as torch counts them.

    Of a tensor made in inference mode torch counts none: the number is another one each time.
    """
    if gradient.is_inference():
        return next(_unlike_any)
    part = on_this_rank(gradient)
    # A DTensor counts what is done to it, and its part what is done to that, as fully_shard does.
    return gradient._version if part is gradient else gradient._version + part._version


def versions_of(gradients: Sequence[Tensor | None]) -> list[int]:
    """``version_of`` each of many, and -1 where there is no gradient."""
    try:
        # Asked several times a step of every parameter: the usual tensor costs one look.
        return [g._version if type(g) is Tensor else -1 if g is None else version_of(g) for g in gradients]
    except RuntimeError:
        # One was made in inference mode.
        return [-1 if gradient is None else version_of(gradient) for gradient in gradients]
