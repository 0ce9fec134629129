"""The norms of a block on one side of clipping, and those of groups of them."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from gradwatch.blocks.arrays import BoolArray, Columns, FloatArray, in_any
from gradwatch.blocks.layout import Groups, Layout, Reduction

__all__ = ["SideNorms"]

# Between these the square of a norm loses nothing, and sums of many such squares stay in range.
_SMALLEST_TO_SQUARE, _LARGEST_TO_SQUARE = 1e-140, 1e140


class SideNorms:
    """What is worked out of the norms of a block on one side of clipping, each when it is first asked for.

    Args:
        layout: what the columns are.
        norms: ``[steps, columns]``; any number where there was no gradient.
        present: which gradients were there, ``[steps, columns]``; None where all of them were.
    """

    def __init__(self, layout: Layout, norms: FloatArray, present: BoolArray | None) -> None:
        self._layout = layout
        self._present = present
        self.norms = norms if present is None else np.where(present, norms, 0.0)
        self._scopes: dict[int, tuple[Columns, FloatArray]] = {}

    @cached_property
    def _odd(self) -> list[int]:
        """Steps in which a square may leave the range; nearly always none."""
        norms = self.norms
        # Written so that NaN is odd.
        if norms.min(initial=1.0) > _SMALLEST_TO_SQUARE and norms.max(initial=1.0) < _LARGEST_TO_SQUARE:
            return []
        fine = (norms == 0.0) | ((norms > _SMALLEST_TO_SQUARE) & (norms < _LARGEST_TO_SQUARE))
        return np.flatnonzero(~fine.all(axis=1)).tolist()

    @cached_property
    def _squares(self) -> FloatArray:
        if not self._odd:
            return self.norms * self.norms
        # A square that leaves the range is a value here, and is worked out anew.
        with np.errstate(all="ignore"):
            return self.norms * self.norms

    @cached_property
    def _all(self) -> FloatArray:
        """The norms of the whole, of each line, and of each owner, ``[steps, 1 + lines + owners]``."""
        return self._of_groups(self._layout.all)

    @property
    def whole(self) -> FloatArray:
        """The global norm, ``[steps]``; NaN where there was no gradient at all."""
        return self._all[:, 0]

    @property
    def lines(self) -> FloatArray:
        """The norm of each line, ``[steps, lines]``."""
        return self._all[:, 1 : 1 + len(self._layout.lines.names)]

    @property
    def owners(self) -> FloatArray:
        """The norm of each module that owns parameters itself, ``[steps, owners]``."""
        return self._all[:, 1 + len(self._layout.lines.names) :]

    @cached_property
    def masked(self) -> FloatArray:
        """``[steps, columns]``; NaN where there was no gradient."""
        return self.norms if self._present is None else np.where(self._present, self.norms, np.nan)

    @cached_property
    def nothing(self) -> BoolArray:
        """In which steps there was no gradient at all, ``[steps]``."""
        if self._present is None:
            return np.zeros(len(self.norms), dtype=bool)
        return ~in_any(self._present)

    def absent(self, groups: Groups) -> BoolArray:
        """Which groups have no gradient at all, ``[steps, groups]``."""
        if self._present is None:
            return np.zeros((len(self.norms), len(groups.names)), dtype=bool)
        return ~groups.any(self._present)

    def scope(self, columns: Columns) -> FloatArray:
        """The norm of some columns taken together, ``[steps]``."""
        if len(columns) == self.norms.shape[1]:
            return self.whole
        known = self._scopes.get(id(columns))
        if known is None:
            norms = self._of_groups(Reduction((columns,)))[:, 0] if len(columns) else self._of_nothing()
            # The array is kept with its norms, so that its number is no other's.
            known = self._scopes[id(columns)] = columns, norms
        return known[1]

    def _of_nothing(self) -> FloatArray:
        return np.full(len(self.norms), 0.0 if self._present is None else np.nan)

    def _of_groups(self, groups: Reduction) -> FloatArray:
        """The norms of some groups, ``[steps, groups]``."""
        norms = np.sqrt(groups.sums(self._squares))
        for step in self._odd:
            norms[step] = [_scaled_norm(self.norms[step, columns]) for columns in groups.groups]
        return norms if self._present is None else np.where(groups.any(self._present), norms, np.nan)


def _scaled_norm(norms: FloatArray) -> float:
    """The norm of norms whose squares may leave the range: scaled by a power of two, which loses nothing."""
    largest = float(np.fmax.reduce(norms, initial=0.0))
    # Never below the normal range, where a division would overflow.
    usable = 0.0 < largest < math.inf
    scale = math.ldexp(1.0, max(math.frexp(largest)[1], -1000)) if usable else 1.0
    scaled = norms / scale
    return math.sqrt(float(np.add.reduce(scaled * scaled))) * scale
