"""The share that each module usually has of the optimizer's norm, and who has lost so much that it may be dead.

That a module's share falls proves nothing: others may have grown, or it has learned what it can. A look at the
graph proves it, where it finds that an activation which the gradient passes is flat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.blocks import BoolArray, FloatArray
from gradwatch.judge.plain import CAUSE, restored, saved_values
from gradwatch.judge.scale import DEAD
from gradwatch.records import Cause
from gradwatch.shapes import COUNT, Fields, Maybe, Named, Number

__all__ = ["Shares"]


class Shares:
    """Those of one optimizer's modules, as logarithms.

    Args:
        fires_after: steps running below its floor before a module is suspected.
        clears_after: steps running above it before one that is dead is well again.
        modules: their names.

    Attributes:
        usual: ``[modules]``; NaN where none is known.
        dead: those of which a look has shown that an activation is dead, and how.
        suspects: those that are to be looked into.
        is_settled: nobody else is below the floor, or was of late.
    """

    # What a module must have lost of its highest usual share: a look calls an activation dead only where three
    # decades are lost there.
    _LOSS = math.log(1e3)

    # How fast the usual share is followed; and what it may be above what is there without having lost anything.
    _FOLLOWING, _NO_LOSS = 0.02, math.log(10.0)

    def __init__(self, fires_after: int, clears_after: int, modules: Sequence[str] = ()) -> None:
        self.usual: FloatArray = np.full(len(modules), math.nan)
        self.dead: dict[str, Cause] = {}
        self.suspects: tuple[str, ...] = ()
        self.is_settled = True
        self._after = fires_after, clears_after
        self._modules = tuple(modules)
        # Each [modules]: the highest that the usual share was, -Inf where none is known; the last that was below
        # the floor; and steps running in which it was, and was not.
        self._highest: FloatArray = np.full(len(modules), -math.inf)
        self._last = self.usual.copy()
        # By place: what the highest may be at the most until the usual share, which lags behind, has come down.
        self._caps: dict[int, float] = {}
        self._low: npt.NDArray[np.int64] = np.zeros(len(modules), dtype=np.int64)
        self._well = self._low.copy()

    @property
    def are_well(self) -> bool:
        """Nobody is below the floor, or was of late."""
        return self.is_settled and not self.dead

    def stay_well(self, shares: FloatArray) -> bool:
        """Whether none of these, ``[steps, modules]``, can be below its floor, as that rises meanwhile."""
        highest = np.fmax(self._highest, np.fmax(self.usual, np.maximum.reduce(shares)))
        return bool(np.logical_and.reduce(np.minimum.reduce(shares) >= highest - self._LOSS))

    def follow(self, shares: FloatArray) -> None:
        """Take in those of a step, ``[modules]``, NaN where one tells nothing of what is usual."""
        before = np.where(np.isnan(self.usual), shares, self.usual)
        after = before * (1.0 - self._FOLLOWING) + self._FOLLOWING * shares
        self.usual = np.where(np.isnan(shares), before, after)
        self._heighten(self.usual, shares)

    def follow_all(self, shares: FloatArray) -> None:
        """The same for several steps, ``[steps, modules]``, without a NaN."""
        usual, trail = np.where(np.isnan(self.usual), shares[0], self.usual), self._FOLLOWING * shares
        for step in trail:
            usual *= 1.0 - self._FOLLOWING
            usual += step
            step[:] = usual
        if self._caps:
            for step, share in zip(trail, shares, strict=True):
                self._heighten(step, share)
        else:
            np.maximum(self._highest, np.maximum.reduce(trail), out=self._highest)
        self.usual = usual

    def _heighten(self, usual: FloatArray, shares: FloatArray) -> None:
        np.fmax(self._highest, usual, out=self._highest)
        for place, cap in tuple(self._caps.items()):
            if usual[place] <= cap or shares[place] > cap:
                del self._caps[place]
            else:
                self._highest[place] = min(self._highest[place], cap)

    def have_lost(self, share: float, place: int) -> bool:
        """Whether a share is no longer what is usual; also where that is not known."""
        usual = float(self.usual[place])
        return math.isnan(usual) or share < math.exp(usual - self._NO_LOSS)

    def take(self, norms: FloatArray, whole: float) -> BoolArray:
        """One more step: which modules are dead, and still below the floor, ``[modules]``.

        Args:
            norms: consumed, ``[modules]``; where it is 0 or missing, it is neither low nor well.
            whole: that of the optimizer.
        """
        there = norms > 0.0
        low: BoolArray = there & (norms < whole * np.exp(self._highest - self._LOSS))
        if self.are_well and not low.any():
            return low
        fires_after, clears_after = self._after
        self._last[low] = np.log(norms[low] / whole)
        self._low = np.where(low, self._low + 1, 0)
        self._well = np.where(low, 0, self._well + there)
        for place in np.flatnonzero(self._well >= clears_after).tolist():
            self.dead.pop(self._modules[place], None)
        due = [self._modules[place] for place in np.flatnonzero(self._low >= fires_after).tolist()]
        self.suspects = tuple(module for module in due if module not in self.dead)
        dead: BoolArray = np.array([module in self.dead for module in self._modules], dtype=bool)
        self._settle()
        return low & dead

    def limit(self, places: Sequence[int], whole: float) -> float:
        """The norm of these modules together at their floors."""
        return math.hypot(*(whole * np.exp(self._highest[places] - self._LOSS)).tolist())

    def answered(self, causes: Mapping[str, Cause]) -> None:
        """What a look has found of suspects; where it proves nothing, ten times what is there is the highest."""
        for module in [suspect for suspect in self.suspects if suspect in causes]:
            place = self._modules.index(module)
            if causes[module].kind in DEAD:
                self.dead[module], self._well[place] = causes[module], 0
            else:
                self._caps[place] = self._highest[place] = float(self._last[place]) + self._NO_LOSS
                self._low[place] = 0
        self.suspects = tuple(suspect for suspect in self.suspects if suspect not in causes)
        self._settle()

    def among(self, modules: Sequence[str]) -> Shares:
        """What is known of these modules; the others are forgotten."""
        shares = Shares(*self._after, modules)
        shares.load_state_dict(self.state_dict())
        return shares

    # A share is a norm divided by another one.
    _SHARE = Number(-1600.0, 710.0)
    remembers = Named(
        Fields(
            usual=_SHARE,
            highest=_SHARE,
            last=Maybe(_SHARE),
            cap=Maybe(_SHARE),
            low=COUNT,
            well=COUNT,
            dead=Maybe(CAUSE),
        )
    )

    def state_dict(self) -> dict[str, Any]:
        """What is known of each module whose usual share is."""
        return {
            module: {
                "usual": float(self.usual[place]),
                "highest": float(self._highest[place]),
                "last": None if math.isnan(self._last[place]) else float(self._last[place]),
                "cap": self._caps.get(place),
                "low": int(self._low[place]),
                "well": int(self._well[place]),
                "dead": saved_values(asdict(self.dead[module])) if module in self.dead else None,
            }
            for place, module in enumerate(self._modules)
            if not math.isnan(self.usual[place])
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; what is not among the modules is forgotten."""
        for place, module in enumerate(self._modules):
            if module in state:
                saved = state[module]
                self.usual[place], self._highest[place] = saved["usual"], saved["highest"]
                self._last[place] = math.nan if saved["last"] is None else saved["last"]
                if saved["cap"] is not None:
                    self._caps[place] = saved["cap"]
                self._low[place], self._well[place] = saved["low"], saved["well"]
                if saved["dead"] is not None:
                    self.dead[module] = Cause(**restored(saved["dead"]))
        self._settle()

    def _settle(self) -> None:
        low = np.flatnonzero(self._low).tolist()
        self.is_settled = all(self._modules[place] in self.dead for place in low)
