"""Sums of squares of gradients in the memory of the CPU: several ways, each the cheapest for its kind of tensor.

A way is made once for the places of a list that it serves, and then fills in their sums at each step. All of
them widen to float64, where the square of every float32 is exact, in a scratch that is used again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from gradwatch.measure.norms import FloatArray, in_memory_order, real_and_dense

__all__ = ["Alone", "Empty", "Gathered", "Odd", "Scratch", "Stacked", "Way", "form_of"]

# What a way depends on. A gradient that differs could be broadcast, cut short or read from a device unseen.
form_of = attrgetter("shape", "dtype", "layout", "is_cpu")

# From here on torch works on several threads, each element-wise call of its own.
_SHARED_AMONG_THREADS = 1 << 15
# Up to here numpy's dot product starts no threads of its own, which would spin against those of torch.
_LONGEST_ROW = 8192


class Scratch:
    """Reused float64 memory of 2 MiB in which host gradients are squared.

    It fits in the cache of a core or beside it, so that widening a tensor chunk by chunk costs one read of
    the gradient and no write to main memory. Two threads must not use one at the same time.
    """

    SIZE = 1 << 18

    def __init__(self) -> None:
        # This may be imported in inference mode, and what is made in it cannot be written outside.
        with torch.inference_mode(False):
            self.wide = torch.empty(self.SIZE, dtype=torch.float64, device="cpu")
        # The same CPU memory seen by numpy: a view made once, no read.
        self.array = cast("FloatArray", self.wide.numpy())


class Way(Protocol):
    """How some places of a list of gradients are measured."""

    def write_squares(self, gradients: Sequence[Tensor], squares: FloatArray) -> None:
        """Write the sum of squares of each gradient of its own.

        Raises:
            RuntimeError: a gradient is not of the form that was planned for.
        """


class Stacked:
    """Many small gradients of one form: stacked, widened and reduced by a call each."""

    # Elements in one stack: on several threads torch would copy tensor by tensor.
    ROOM = _SHARED_AMONG_THREADS - 1

    def __init__(self, places: Sequence[int], like: Tensor, scratch: Scratch) -> None:
        self._places = list(places)
        shape = torch.Size([len(places), *like.shape])
        self._form = (shape, like.dtype, torch.strided, True)
        self._wide = scratch.wide[: shape.numel()].view(shape)
        self._rows = _Rows(scratch.array[: shape.numel()], len(places))

    def write_squares(self, gradients: Sequence[Tensor], squares: FloatArray) -> None:
        """Stack, look once, widen, reduce."""
        # Stacking demands one shape and one device, and yields the widest dtype: one look covers them all.
        stack = torch.stack([gradients[place] for place in self._places])
        _check(form_of(stack) == self._form)
        self._wide.copy_(stack)
        squares[self._places] = self._rows.squares()


class Gathered:
    """A few small gradients of any forms: widened side by side by one call, and reduced by another."""

    def __init__(self, places: Sequence[int], like: Sequence[Tensor], scratch: Scratch) -> None:
        self._places = list(places)
        self._forms = [form_of(tensor) for tensor in like]
        sizes = [tensor.numel() for tensor in like]
        self._starts = np.cumsum([0, *sizes[:-1]])
        pieces = torch.split(scratch.wide[: sum(sizes)], sizes)
        self._views = [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]
        self._used = scratch.array[: sum(sizes)]

    def write_squares(self, gradients: Sequence[Tensor], squares: FloatArray) -> None:
        """Look at each, widen all, square in place and sum between the borders."""
        own = [gradients[place] for place in self._places]
        _check(list(map(form_of, own)) == self._forms)
        torch._foreach_copy_(self._views, own)
        np.multiply(self._used, self._used, out=self._used)
        squares[self._places] = np.add.reduceat(self._used, self._starts)


class Alone:
    """One gradient, widened as a whole or chunk by chunk, and a dot product each."""

    def __init__(self, place: int, like: Tensor, scratch: Scratch) -> None:
        self._place = place
        self._form = form_of(like)
        full, rest = divmod(like.numel(), Scratch.SIZE)
        self._stretches = [_Stretch(Scratch.SIZE, scratch)] * full
        if rest:
            self._stretches.append(_Stretch(rest, scratch))
        self._whole = self._stretches[0].wide.view(like.shape) if len(self._stretches) == 1 else None

    def write_squares(self, gradients: Sequence[Tensor], squares: FloatArray) -> None:
        """Widen it and reduce it: at once where it fits into the scratch as it lies in memory."""
        gradient = gradients[self._place]
        _check(form_of(gradient) == self._form)
        if self._whole is not None and gradient.is_contiguous():
            self._whole.copy_(gradient)
            squares[self._place] = self._stretches[0].square()
        else:
            squares[self._place] = self._by_chunks(gradient)

    def _by_chunks(self, gradient: Tensor) -> float:
        total = 0.0
        chunks = torch.split(in_memory_order(gradient), Scratch.SIZE)
        for chunk, stretch in zip(chunks, self._stretches, strict=True):
            stretch.wide.copy_(chunk)
            total += stretch.square()
        return total


class Odd:
    """One complex or sparse gradient: how many values it has is seen anew each time."""

    def __init__(self, place: int, like: Tensor, scratch: Scratch) -> None:
        self._place = place
        self._form = form_of(like)
        self._scratch = scratch

    def write_squares(self, gradients: Sequence[Tensor], squares: FloatArray) -> None:
        """Reduce its values, as real numbers."""
        gradient = gradients[self._place]
        _check(form_of(gradient) == self._form)
        values = real_and_dense(gradient)
        total = np.zeros(1)
        if values.numel():
            Alone(0, values, self._scratch).write_squares([values], total)
        squares[self._place] = total[0]


class Empty:
    """Gradients without elements: their sums are 0, and what is left is to see that they stay so."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = list(places)

    def write_squares(self, gradients: Sequence[Tensor], squares: FloatArray) -> None:
        """Look at each."""
        _check(not any(gradients[place].numel() for place in self._places))


class _Rows:
    """Sums of squares of the rows of an array."""

    def __init__(self, array: FloatArray, rows: int) -> None:
        table = array.reshape(rows, -1)
        self._left, self._right = table[:, np.newaxis, :], table[:, :, np.newaxis]
        self._results = np.empty((rows, 1, 1))
        self._squares = self._results.reshape(rows)

    def squares(self) -> FloatArray:
        np.matmul(self._left, self._right, out=self._results)
        return self._squares


class _Stretch:
    """The beginning of the scratch, for so many values."""

    def __init__(self, size: int, scratch: Scratch) -> None:
        self.wide, array = scratch.wide[:size], scratch.array[:size]
        rows = -(-size // _LONGEST_ROW)
        even = size - size % rows
        self._rows, self._rest = _Rows(array[:even], rows), array[even:]
        self._is_shared = size >= _SHARED_AMONG_THREADS
        result = torch.zeros((), dtype=torch.float64, device="cpu")
        self._result, self._result_seen = result, result.numpy()  # a view of CPU memory, no read

    def square(self) -> float:
        if self._is_shared and torch.get_num_threads() > 1:
            # On the threads that have just widened it: they would fall asleep beside a loop of ours.
            torch.dot(self.wide, self.wide, out=self._result)
            return float(self._result_seen)
        return float(np.add.reduce(self._rows.squares()) + np.dot(self._rest, self._rest))


def _check(is_as_planned: bool) -> None:
    if not is_as_planned:
        raise RuntimeError("a gradient is not of the form that was planned for")
