"""How large a module's gradient is, from what it was down to nothing: one scale for ``vanishing`` and ``zero``.

A gradient that underflows is exactly 0 in one step and 1e-28 in the next. Neither is a sign of life: what has
begun to be next to nothing goes on as one streak until it is large again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gradwatch.blocks import BoolArray, FloatArray
from gradwatch.shapes import COUNT, Row

__all__ = ["DEAD", "LIMIT", "SHARE", "Streaks", "faint"]

# A gradient is next to nothing below this norm, and below this share of the optimizer's. The norm is ten times the
# ``eps`` that Adam adds to the root of the second moment by default: below that even Adam's steps fade.
LIMIT, SHARE = 1e-7, 0.01

# Causes by which a gradient that fades is no loss that is satisfied: all units of an activation are flat, or
# nearly all. A sigmoid is flat also where it is right.
DEAD = frozenset(("dead-relu", "saturated-tanh"))


def faint(norms: FloatArray, wholes: FloatArray, limit: float = LIMIT, share: float = SHARE) -> BoolArray:
    """Which gradients are not 0, and next to nothing.

    Args:
        norms: of each module, ``[steps, modules]``.
        wholes: of the optimizer, ``[steps]``.
        limit: a norm that is above it is none.
        share: nor is one above this share of the whole.
    """
    found: BoolArray = (norms > 0.0) & (norms < np.minimum(limit, share * wholes)[:, None])
    return found


class Streaks:
    """For how many steps running each module has been next to nothing: exactly 0 too, but for the first.

    Args:
        modules: how many there are.

    Attributes:
        steps: ``[modules]``.
        any: whether any lasts.
    """

    # Exactly 0 for so long before it is told: it is for the rule ``zero`` to tell.
    _ZEROS = 3

    def __init__(self, modules: int = 0) -> None:
        self.steps: npt.NDArray[np.int64] = np.zeros(modules, dtype=np.int64)
        self._zeros = self.steps.copy()
        self._told = np.zeros(modules, dtype=bool)
        self.any = False

    def take(self, faint: BoolArray, silent: BoolArray) -> None:
        """These are faint in this step, and those exactly 0 or missing; each ``[modules]``."""
        if not (self.any or faint.any()):
            return
        low = faint | (silent & (self.steps > 0))
        zeros = np.where(silent & low, self._zeros + 1, 0)
        low &= self._told | (zeros < self._ZEROS)
        self.steps, self._zeros, self._told = np.where(low, self.steps + 1, 0), zeros, self._told & low
        self.any = bool(self.steps.any())

    def tell(self, places: Sequence[int]) -> None:
        """These are told of from now on: also where they stay exactly 0, they go on until they are well."""
        self._told[list(places)] = True

    remembers = Row(COUNT, COUNT, COUNT)

    def state_dict(self, modules: Sequence[str]) -> dict[str, list[int]]:
        """Those that last, by module."""
        rows = np.stack([self.steps, self._zeros, self._told.astype(np.int64)], axis=1)
        return {modules[place]: rows[place].tolist() for place in np.flatnonzero(self.steps).tolist()}

    def load_state_dict(self, state: Mapping[str, Sequence[int]], modules: Sequence[str]) -> None:
        """Go on from what ``state_dict`` gave; what is not among these modules is forgotten."""
        rows = np.array([state.get(module, (0, 0, 0)) for module in modules], dtype=np.int64).reshape(-1, 3)
        self.steps, self._zeros, self._told = rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2] > 0
        self.any = bool(self.steps.any())
