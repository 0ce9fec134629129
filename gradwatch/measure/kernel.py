"""What is asked of gradients at each step, in one call each: which there are, and their norms in CPU memory.

The kernel is native where its extension was built, see ``_native.c``, and in torch where it was not, or where the
environment has ``GRADWATCH_PURE=1``. Both give the same.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gradwatch.measure import harmless, pure
from gradwatch.measure.norms import on_host

__all__ = [
    "ABSENT",
    "CHANGED",
    "KIND",
    "NEW",
    "ONCE",
    "SAME",
    "Shield",
    "forked",
    "holds",
    "look",
    "norms",
    "unchanged",
    "zeros",
]

# What has become of a gradient since the last look.
ABSENT, SAME, ONCE, CHANGED, NEW = range(5)


def _import_native() -> ModuleType | None:
    if os.environ.get("GRADWATCH_PURE") == "1":
        return None
    try:
        from gradwatch.measure import _native
    except ImportError:
        return None
    native: ModuleType = _native
    return native


_native = _import_native()
_way = _native or pure

# What runs.
KIND: str = f"native {_native.WAYS[0]}" if _native else "pure torch"


# One call of no Python each, asked several times a step. What they give is said at ``gradwatch.measure.pure``.
look: Callable[[list[Tensor], bytearray], tuple[list[Tensor | None], bytes]] = _way.look
unchanged: Callable[[list[Tensor], bytearray, tuple[int, ...]], bool] = _way.unchanged
holds: Callable[[list[dict[str, Any]], bytes], bool] = _way.holds


# What wraps all that runs in a training loop, see ``gradwatch.shield``.
Shield: type[harmless.Shield] = (_native or harmless).Shield
forked: Callable[[], None] = (_native or harmless).forked


def norms(gradients: list[Tensor | None], places: bytes, out: bytearray) -> tuple[float, int, list[int] | None]:
    """The exact L2 norms of those gradients that lie in CPU memory.

    Args:
        gradients: gradients, in the order of ``out``.
        places: int64, which of them to measure.
        out: float64; the norm of ``gradients[k]`` is written to ``out[k]``; 0.0 where that is None, and NaN where
            its storage was freed under it.

    Returns:
        The sum of the squares of the norms written; how many gradients have a norm below
        ``pure.FAINT``, one of exactly 0 among them; the places of
        those that are not in CPU memory, of which nothing was written, or None where there are none.

    Raises:
        IndexError: there is no such place.
    """
    total, faint, left = _way.norms(gradients, places, out)
    if left is not None and _way is _native:
        # Strided, sparse and float8 ones and the like, which torch has to bring into a line first.
        more, more_faint, left = pure.norms(gradients, array("q", left).tobytes(), out)
        total, faint = total + more, faint + more_faint
    return total, faint, left


def zeros(gradients: list[Tensor | None], places: tuple[int, ...]) -> tuple[int, ...]:
    """Which of these gradients are 0 everywhere, of those in CPU memory, where to read is a load."""
    # The first elements tell of nearly every gradient that is not zero.
    perhaps = places if _native is None else _native.perhaps_zero(gradients, places)
    if not perhaps:
        return ()
    found = ((place, gradients[place]) for place in perhaps)
    return tuple(place for place, g in found if g is not None and on_host(g) and _is_zero(g))


def _is_zero(gradient: Tensor) -> bool:
    if gradient.layout is not torch.strided:
        return gradient.layout is torch.sparse_coo and not gradient.any()
    # One element tells of nearly every gradient that is not zero, and the norm, which may round to 0, of the
    # rest; any() alone takes ten times as long.
    if gradient.numel() and gradient[(0,) * gradient.dim()]:
        return False
    return not torch.linalg.vector_norm(gradient) and not gradient.any()
