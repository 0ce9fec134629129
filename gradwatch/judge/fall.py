"""How far the norm of each module has fallen since its share of the optimizer's was last usual.

What an activation takes of a gradient is held against that: where the gradient that comes to it has faded as well,
it has taken a part of it only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.blocks import FloatArray

__all__ = ["NO_LOSS", "Fall"]

# A share that is below another by no more than this has lost nothing.
NO_LOSS = math.log(10.0)


class Fall:
    """That of one optimizer's modules. All arrays are logarithms.

    Attributes:
        top: the highest that each usual share ever was, ``[modules]``; -Inf where none is known.
        well: the usual norm when the usual share was last near that, ``[modules]``; NaN where none is known.
    """

    def __init__(self, modules: int) -> None:
        self.top: FloatArray = np.full(modules, -math.inf)
        self.well: FloatArray = np.full(modules, math.nan)

    def follow(self, usual: FloatArray) -> None:
        """Take in what is usual after a step, share and norm, ``[modules, 2]``; NaN where that is not known."""
        self.top = np.fmax(self.top, usual[:, 0])
        self.well = np.where(usual[:, 0] >= self.top - NO_LOSS, usual[:, 1], self.well)

    def follow_all(self, trail: FloatArray, highest: FloatArray) -> None:
        """The same after each of several steps, ``[steps, modules, 2]``, without a NaN.

        Args:
            trail: what is usual.
            highest: the highest of it, ``[modules, 2]``.
        """
        self.top = np.fmax(self.top, highest[:, 0])
        near = trail[:, :, 0] >= self.top - NO_LOSS
        if near[-1].all():
            self.well = trail[-1, :, 1] + 0.0  # a view would hold the whole trail
        else:
            last = len(near) - 1 - np.argmax(near[::-1], axis=0)
            self.well = np.where(near.any(axis=0), trail[last, np.arange(len(self.top)), 1], self.well)

    def decades(self, places: Sequence[int], norms: FloatArray) -> float:
        """How far these modules together have fallen to these norms, ``[modules]``; 0 where that is not known."""
        before, now = math.hypot(*np.exp(self.well[places])), math.hypot(*norms[places])
        return math.log10(before / now) if 0.0 < now < before < math.inf else 0.0
