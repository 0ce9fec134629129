"""Norms of gradients in the memory of the CPU, by torch and numpy: where a call costs more than its arithmetic.

Small gradients are laid end to end and measured together, a few calls for hundreds; a large one takes calls of its
own. All are widened to float64, where the square of every float32 is exact, in a scratch that is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors as end_to_end

from gradwatch.blocks import FloatArray
from gradwatch.measure.norms import PIECE, exact_norms, in_memory_order

__all__ = ["host_norms"]

# Up to here a gradient is cheaper to copy beside others than to reduce by calls of its own (docs/decisions/0001).
SMALL = 8192
# Of small ones together: from 32,768 elements on torch would wake other threads for a few microseconds of work.
LINE = 1 << 15

# Below it, squares of float64 may have lost digits to underflow; those of float32 begin at 1e-90.
_SMALLEST_SAFE_SQUARE = 1e-280

_dtype = attrgetter("dtype")

Int64 = npt.NDArray[np.int64]


class _Line:
    """Small tensors that are measured together.

    Args:
        places: which, in the list of all.
        sizes: elements of each.
        scratch: where to square.
    """

    def __init__(self, places: Int64, sizes: Int64, scratch: Tensor) -> None:
        self.places = places
        self._chosen = places.tolist()  # numpy: no device is read
        self._starts = np.cumsum(sizes) - sizes
        self._wide = scratch[: int(sizes.sum())]
        # The same memory as numpy sees it: no device is read.
        self._array = cast("FloatArray", self._wide.numpy())

    def squares(self, tensors: Sequence[Tensor]) -> FloatArray:
        """The sum of squares of each of its tensors."""
        chosen = list(map(tensors.__getitem__, self._chosen))
        # Of the widest of their dtypes. What has one dimension, as most that are small do, needs no view each.
        flat = set(map(Tensor.dim, chosen)) == {1}
        self._wide.copy_(torch.cat(chosen) if flat else end_to_end(chosen))  # type: ignore[no-untyped-call]
        np.multiply(self._array, self._array, out=self._array)
        sums: FloatArray = np.add.reduceat(self._array, self._starts)
        return sums


class _Large:
    """A large tensor.

    Args:
        place: which, in the list of all.
        size: its elements.
        scratch: where to square.
    """

    def __init__(self, place: int, size: int, scratch: Tensor) -> None:
        self.place = place
        full, rest = divmod(size, PIECE)
        self._pieces = [_Piece(scratch)] * full + [_Piece(scratch[:rest])] * (rest > 0)

    def square(self, tensors: Sequence[Tensor]) -> float:
        """Its sum of squares."""
        values = in_memory_order(tensors[self.place])
        if len(self._pieces) == 1:
            return self._pieces[0].square(values)
        pieces = zip(self._pieces, torch.split(values, PIECE), strict=True)
        return sum(piece.square(part) for piece, part in pieces)


class _Piece:
    """A part of a large tensor, in the scratch."""

    # From 10,000 elements on numpy's dot product starts threads of its own, which spin against those of torch.
    ROW = 8192

    def __init__(self, wide: Tensor) -> None:
        self._wide = wide
        array = cast("FloatArray", wide.numpy())  # the same memory: no device is read
        even = len(array) - len(array) % self.ROW
        rows = array[:even].reshape(-1, self.ROW)
        self._left, self._right, self._rest = rows[:, np.newaxis], rows[:, :, np.newaxis], array[even:]

    def square(self, values: Tensor) -> float:
        """The sum of squares of so many values."""
        self._wide.copy_(values)
        if torch.get_num_threads() > 1:
            # On the threads that have just widened them: they would fall asleep beside numpy.
            return float(torch.dot(self._wide, self._wide))  # in CPU memory: a load
        return float(np.matmul(self._left, self._right).sum() + self._rest @ self._rest)


class _Thread(threading.local):
    """What a thread measures with: a scratch can be used by one at a time."""

    def __init__(self) -> None:
        # What is made in inference mode could not be written to outside.
        with torch.inference_mode(False):
            scratch = torch.empty(PIECE, dtype=torch.float64, device="cpu")
        # Lists that differ: those of a few optimizers, before and after clipping, and some at the start of a run.
        self.plan = lru_cache(maxsize=32)(partial(_plan, scratch))


def _plan(scratch: Tensor, sizes: tuple[int, ...]) -> tuple[list[_Large], list[_Line]]:
    """How tensors of these sizes are measured; one without elements is not."""
    each = np.array(sizes, dtype=np.int64)
    small = np.flatnonzero((each > 0) & (each <= SMALL))
    full = np.flatnonzero(np.diff(np.cumsum(each[small]) // (LINE - SMALL))) + 1
    # numpy: no device is read
    large = [_Large(place, sizes[place], scratch) for place in np.flatnonzero(each > SMALL).tolist()]
    lines = [_Line(part, each[part], scratch) for part in np.split(small, full) if len(part)]
    return large, lines


_thread = _Thread()


def host_norms(tensors: Sequence[Tensor]) -> FloatArray:
    """The exact L2 norm of each tensor; a new array of float64.

    To be called where torch records no graph and numpy warns of no overflow.

    Args:
        tensors: real and strided, of dtypes that torch reduces, in the memory of the CPU.
    """
    squares = np.zeros(len(tensors))
    large, lines = _thread.plan(tuple(map(Tensor.numel, tensors)))
    for one in large:
        squares[one.place] = one.square(tensors)
    for line in lines:
        squares[line.places] = line.squares(tensors)
    norms: FloatArray = np.sqrt(squares)
    if torch.float64 in set(map(_dtype, tensors)):
        # numpy: no device is read
        for place in np.flatnonzero((squares < _SMALLEST_SAFE_SQUARE) | (squares == np.inf)).tolist():
            norms[place] = float(exact_norms([tensors[place]])[0])  # in CPU memory: a load
    return norms
