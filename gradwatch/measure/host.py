"""Norms of gradients in the memory of the CPU, where a call costs more than the arithmetic of a small tensor.

``HostPlan`` sorts a list of gradients by the cheapest way to measure each, once, and then runs these ways at
each step. What the ways are is in ``gradwatch.measure.squares``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradwatch.measure.norms import FloatArray, exact_norms
from gradwatch.measure.squares import Alone, Empty, Gathered, Odd, Scratch, Stacked, Way, form_of

__all__ = ["HostPlan", "Scratch"]

# Below it, squares of float64 values may have lost digits to underflow.
_SMALLEST_SAFE_SQUARE = 1e-280


class HostPlan:
    """Norms of one fixed list of gradients in CPU memory: planned once, run at each step.

    Args:
        shapes: a tensor of the form of each gradient: shape, dtype and layout; the gradients themselves will do.
            Complex and sparse ones may be among them and slow down nobody else.
        scratch: where to square; shared between plans that never run at once.
    """

    # Up to here a tensor is cheaper to copy beside others than to reduce by calls of its own, and from so many
    # of one form on they are cheaper to stack (measured: docs/decisions/0001).
    SMALL = 4096
    MANY = 12

    def __init__(self, shapes: Sequence[Tensor], scratch: Scratch) -> None:
        self._squares = np.zeros(len(shapes))
        self._wide = np.array([shape.dtype in (torch.float64, torch.complex128) for shape in shapes], dtype=bool)
        self._any_wide = bool(self._wide.any())
        self._ways = list(_ways(shapes, scratch))

    def norms(self, gradients: Sequence[Tensor]) -> FloatArray:
        """The exact L2 norm of each gradient, in the order of the plan; a new array of float64.

        To be called where no graph is recorded.

        Raises:
            RuntimeError: a gradient has another shape, dtype, layout or device than was planned for.
        """
        # Inf times 0 and the overflow of float64 squares are values here, not errors.
        with np.errstate(all="ignore"):
            for way in self._ways:
                way.write_squares(gradients, self._squares)
            norms: FloatArray = np.sqrt(self._squares)
        if self._any_wide:
            self._redo_out_of_range(gradients, norms)
        return norms

    def _redo_out_of_range(self, gradients: Sequence[Tensor], norms: FloatArray) -> None:
        in_range = (self._squares > _SMALLEST_SAFE_SQUARE) & (self._squares < np.inf)
        # In CPU memory there is no device to wait for: each read is a load.
        for place in np.flatnonzero(self._wide & ~in_range).tolist():
            norms[place] = float(exact_norms([gradients[place]])[0])


def _ways(shapes: Sequence[Tensor], scratch: Scratch) -> Iterator[Way]:
    small: dict[object, list[int]] = {}
    for place, shape in enumerate(shapes):
        if not _is_plain(shape):
            yield Odd(place, shape, scratch)
        elif shape.numel() > HostPlan.SMALL:
            yield Alone(place, shape, scratch)
        else:
            small.setdefault(form_of(shape), []).append(place)
    yield from _ways_of_small(list(small.values()), shapes, scratch)


def _ways_of_small(alike: Sequence[list[int]], shapes: Sequence[Tensor], scratch: Scratch) -> Iterator[Way]:
    few: list[int] = []
    for places in alike:
        first = shapes[places[0]]
        if not first.numel():
            yield Empty(places)
        elif len(places) < HostPlan.MANY:
            few += places
        else:
            yield from (Stacked(part, first, scratch) for part in _parts(places, shapes, Stacked.ROOM))
    for part in _parts(few, shapes, Scratch.SIZE):
        yield Gathered(part, [shapes[place] for place in part], scratch)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_complex()


def _parts(places: Sequence[int], shapes: Sequence[Tensor], room: int) -> list[list[int]]:
    """Split places into runs of at most so many elements."""
    parts: list[list[int]] = []
    left = 0
    for place in places:
        size = shapes[place].numel()
        if size > left:
            parts.append([])
            left = room
        parts[-1].append(place)
        left -= size
    return parts
