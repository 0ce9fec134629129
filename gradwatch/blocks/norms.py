"""The norms of a block, and those of groups of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from gradwatch.blocks.arrays import BEFORE, BoolArray, Columns, FloatArray, in_any
from gradwatch.blocks.layout import Groups, Layout, Reduction
from gradwatch.blocks.once import once

__all__ = ["BlockNorms"]

# Between these the square of a norm loses nothing, and sums of many such squares stay in range.
_SMALLEST_TO_SQUARE, _LARGEST_TO_SQUARE = 1e-140, 1e140

_Array = TypeVar("_Array", FloatArray, BoolArray)


class BlockNorms:
    """What is worked out of the norms of a block, each when it is first asked for.

    Both sides are worked out together, the steps before clipping and then those after it: what numpy asks for a
    call is more than what so few numbers cost.

    Args:
        layout: what the columns are.
        both: norms before and after clipping, ``[2 * steps, columns]``; any number where there was no gradient.
        present: which gradients were there, ``[steps, columns]`` each; None where all of them were.
    """

    def __init__(self, layout: Layout, both: FloatArray, present: Sequence[BoolArray] | None) -> None:
        self._layout = layout
        self._steps = len(both) // 2
        self._present = None if present is None else np.concatenate(present)
        self._norms = both if self._present is None else np.where(self._present, both, 0.0)
        self._scopes: dict[int, tuple[Columns, FloatArray]] = {}

    def norms(self, side: int) -> FloatArray:
        """``[steps, columns]``; 0 where there was no gradient."""
        return self._on(side, self._norms)

    @once
    def wholes(self) -> FloatArray:
        """The global norm on both sides, ``[2 * steps]``; NaN where there was no gradient at all."""
        return self._all[:, 0]

    def whole(self, side: int) -> FloatArray:
        """That of one side, ``[steps]``."""
        return self._on(side, self.wholes)

    def lines(self, side: int) -> FloatArray:
        """The norm of each line, ``[steps, lines]``."""
        return self._on(side, self._all)[:, 1 : 1 + len(self._layout.lines.names)]

    def owners(self, side: int) -> FloatArray:
        """The norm of each module that owns parameters itself, ``[steps, owners]``."""
        return self._on(side, self._all)[:, 1 + len(self._layout.lines.names) :]

    def masked(self, side: int) -> FloatArray:
        """``[steps, columns]``; NaN where there was no gradient."""
        if self._present is None:
            return self.norms(side)
        return np.where(self._on(side, self._present), self.norms(side), np.nan)

    def nothing(self, side: int) -> BoolArray:
        """In which steps there was no gradient at all, ``[steps]``."""
        if self._present is None:
            return np.zeros(self._steps, dtype=bool)
        return ~in_any(self._on(side, self._present))

    def absent(self, side: int, groups: Groups) -> BoolArray:
        """Which groups have no gradient at all, ``[steps, groups]``."""
        if self._present is None:
            return np.zeros((self._steps, len(groups.names)), dtype=bool)
        return ~groups.any(self._on(side, self._present))

    def scope(self, side: int, columns: Columns) -> FloatArray:
        """The norm of some columns taken together, ``[steps]``."""
        if len(columns) == self._norms.shape[1]:
            return self.whole(side)
        known = self._scopes.get(id(columns))
        if known is None:
            norms = self._of_groups(Reduction((columns,)))[:, 0] if len(columns) else self._of_nothing()
            # The array is kept with its norms, so that its number is no other's.
            known = self._scopes[id(columns)] = columns, norms
        return self._on(side, known[1])

    @once
    def smallest(self) -> float:
        """The smallest norm on either side; 0 where a gradient was missing, NaN where one is NaN."""
        return float(np.minimum.reduce(self._norms, axis=None, initial=math.inf))

    @once
    def are_in_range(self) -> bool:
        """Whether the square of each is in range, as it nearly always is: some are there, none 0, NaN or Inf."""
        # Written so that NaN is not, nor an optimizer without parameters.
        largest = float(np.maximum.reduce(self._norms, axis=None, initial=0.0))
        return self.smallest > _SMALLEST_TO_SQUARE < largest < _LARGEST_TO_SQUARE

    def _on(self, side: int, both: _Array) -> _Array:
        return both[: self._steps] if side == BEFORE else both[self._steps :]

    def _odd(self) -> list[int]:
        """Rows in which a square may leave the range; nearly always none."""
        norms = self._norms
        # Written so that NaN is odd.
        fine = (norms == 0.0) | ((norms > _SMALLEST_TO_SQUARE) & (norms < _LARGEST_TO_SQUARE))
        return np.flatnonzero(~fine.all(axis=1)).tolist()

    @once
    def _all(self) -> FloatArray:
        """The norms of the whole, of each line, and of each owner, ``[2 * steps, 1 + lines + owners]``."""
        return self._of_groups(self._layout.all)

    def _of_nothing(self) -> FloatArray:
        return np.full(len(self._norms), 0.0 if self._present is None else np.nan)

    def _of_groups(self, groups: Reduction) -> FloatArray:
        """The norms of some groups, ``[2 * steps, groups]``."""
        # Where a square leaves the range its group is worked out anew.
        if self.are_in_range:
            norms = np.sqrt(groups.squares(self._norms))
        else:
            with np.errstate(all="ignore"):
                norms = np.sqrt(groups.squares(self._norms))
            for row in self._odd():
                norms[row] = [_scaled_norm(self._norms[row, columns]) for columns in groups.groups]
        return norms if self._present is None else np.where(groups.any(self._present), norms, np.nan)


def _scaled_norm(norms: FloatArray) -> float:
    """The norm of norms whose squares may leave the range: scaled by a power of two, which loses nothing."""
    largest = float(np.fmax.reduce(norms, initial=0.0))
    # Never below the normal range, where a division would overflow.
    usable = 0.0 < largest < math.inf
    scale = math.ldexp(1.0, max(math.frexp(largest)[1], -1000)) if usable else 1.0
    scaled = norms / scale
    return math.sqrt(float(np.add.reduce(scaled * scaled))) * scale
