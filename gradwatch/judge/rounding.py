"""Gradients that are small from the first step on, and may be nothing but rounding errors.

What does not depend on its input, as a normaliser over one element, has a gradient of 0 that is computed as the
difference of two equals: rounding is left of it. Its size proves nothing, since a module may have a small share of
the norm and learn all the same. A look at the graph proves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gradwatch.blocks import BoolArray, FloatArray
from gradwatch.judge.plain import CAUSE, restored, saved_values
from gradwatch.records import Cause
from gradwatch.shapes import Named

__all__ = ["Rounding"]


class Rounding:
    """The modules of one optimizer.

    Attributes:
        shown: those of which a look has shown it, and how.
        suspects: those that are to be looked into.
    """

    # Below this share of the whole it may be: the epsilon of float32, times the 316 that a normaliser with an
    # epsilon of 1e-5 multiplies by where nothing varies, times three for the errors of a sum.
    SHARE = 3 * 2.0**-23 * 1e-5**-0.5

    # Where a look has shown it, nothing below this share is a sign of life: when a training has learned what it
    # can, the whole falls, and what is rounded does not.
    SHARE_OF_SHOWN = 100 * SHARE

    # So many steps are looked at; in the first of them a module behind another that starts from 0 has none.
    _STEPS = 2

    def __init__(self) -> None:
        self.shown: dict[str | None, Cause] = {}
        self.suspects: tuple[str, ...] = ()
        self._seen = 0
        self._faint: list[str] = []

    @property
    def is_settled(self) -> bool:
        """Whether it is known which modules are to be looked into."""
        return self._seen >= self._STEPS

    def take(self, modules: Sequence[str | None], norms: FloatArray, whole: float) -> None:
        """One more of the first steps.

        Args:
            modules: all of them.
            norms: consumed, ``[modules]``; NaN where there is none.
            whole: that of the optimizer.
        """
        shares = zip(modules, norms.tolist(), strict=True)
        faint = [module for module, norm in shares if module is not None and norm < self.SHARE * whole]
        self._faint = [module for module in faint if not self._seen or module in self._faint]
        # Who is not in the first step is not in both: nobody is left to look at.
        self._seen += 1 if self._faint else self._STEPS
        if self.is_settled:
            # What is exactly 0 is told without a proof.
            there = dict(zip(modules, norms.tolist(), strict=True))
            self.suspects = tuple(module for module in self._faint if there[module] > 0.0)

    def answered(self, causes: Mapping[str, Cause]) -> None:
        """What a look has found of the suspects: those that it can tell nothing of are let go."""
        found = {module: causes[module] for module in self.suspects if module in causes}
        self.shown |= {module: why for module, why in found.items() if why.kind == "constant"}
        self.suspects = ()

    def silent(self, modules: Sequence[str | None], norms: FloatArray, wholes: FloatArray) -> BoolArray:
        """Which gradients are nothing but rounding, ``[steps, modules]``."""
        shown = np.array([module in self.shown for module in modules], dtype=bool)
        found: BoolArray = (norms < self.SHARE_OF_SHOWN * wholes[:, None]) & shown
        return found

    remembers = Named(CAUSE)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, as plain values; who was suspected is looked into no more."""
        return {str(module): saved_values(asdict(found)) for module, found in self.shown.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._seen = self._STEPS
        self.shown = {module: Cause(**restored(found)) for module, found in state.items()}
