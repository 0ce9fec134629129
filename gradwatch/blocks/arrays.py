"""The arrays that measurements are in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["AFTER", "BEFORE", "BoolArray", "Columns", "FloatArray", "in_any"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Columns = npt.NDArray[np.intp]

# The two sides of clipping, as indices.
BEFORE, AFTER = 0, 1


def in_any(flags: BoolArray) -> BoolArray:
    """``[steps, columns]`` -> whether any column is flagged, ``[steps]``."""
    steps: BoolArray = np.asarray(flags.any(axis=1))
    return steps
