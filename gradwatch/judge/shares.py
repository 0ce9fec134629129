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
from gradwatch.causes import cause
from gradwatch.judge.plain import CAUSE, restored, saved_values
from gradwatch.judge.scale import DEAD
from gradwatch.records import Cause
from gradwatch.shapes import COUNT, Fields, Maybe, Named, Number, Row

__all__ = ["Shares", "logarithms"]

_FADED = "the gradient that came to it has faded as well, as that of an answer which is right does"


class Shares:
    """Those of one optimizer's modules, as logarithms.

    Args:
        fires_after: steps running below its floor before a module is suspected.
        clears_after: steps running above it before one that is dead is well again.
        modules: their names.

    Attributes:
        usual: ``[modules, 2]``, the share and the norm itself; NaN where none is known.
        dead: those of which a look has shown that an activation is dead, and how.
        suspects: those that are to be looked into.
        is_settled: nobody else is below the floor, or was of late.
    """

    # What a module must have lost of its highest usual share: a look calls an activation dead only where three
    # decades are lost there.
    _LOSS = math.log(1e3)

    # Decades that an activation takes at the most and is not flat: a look calls a unit flat below a slope of 0.1.
    _NOT_FLAT = 1.0

    # So that it is not for the last digit of a logarithm to decide.
    _CLEARLY = 1e-9

    # Blocks that are followed together.
    _AT_ONCE = 4

    # How fast the usual share is followed; and what it may be above what is there without having lost anything.
    _FOLLOWING, _NO_LOSS = 0.02, math.log(10.0)

    def __init__(self, fires_after: int, clears_after: int, modules: Sequence[str] = ()) -> None:
        self.usual: FloatArray = np.full((len(modules), 2), math.nan)
        self.dead: dict[str, Cause] = {}
        self.suspects: tuple[str, ...] = ()
        self.is_settled = True
        self._after = fires_after, clears_after
        self._all_known = False
        # Norms and wholes of blocks that are still to be followed.
        self._later: list[tuple[FloatArray, FloatArray]] = []
        # No share is above 1, and no floor above that of 1.
        self._above_floors = math.exp(self._CLEARLY - self._LOSS)
        self._modules = tuple(modules)
        # [modules, 2]: the highest that the usual ones were, -Inf where none is known.
        self._highest: FloatArray = np.full((len(modules), 2), -math.inf)
        # Each [modules]: the last share that was below the floor; the newest norm; and steps running in which it
        # was below the floor, and was not.
        self._last: FloatArray = np.full(len(modules), math.nan)
        self._now = self._last
        # By place: what the highest may be at the most until the usual share, which lags behind, has come down.
        self._caps: dict[int, float] = {}
        self._low: npt.NDArray[np.int64] = np.zeros(len(modules), dtype=np.int64)
        self._well = self._low.copy()

    @property
    def are_well(self) -> bool:
        """Nobody is below the floor, or was of late."""
        return self.is_settled and not self.dead

    def follow(self, sizes: FloatArray) -> None:
        """Take in those of a step, ``[modules, 2]``, NaN where one tells nothing of what is usual."""
        self._catch_up()
        before = np.where(np.isnan(self.usual), sizes, self.usual)
        after = before * (1.0 - self._FOLLOWING) + self._FOLLOWING * sizes
        self.usual = np.where(np.isnan(sizes), before, after)
        self._heighten(self.usual, sizes)

    def stay_well(self, norms: FloatArray, wholes: FloatArray, smallest: float, largest: float) -> bool:
        """Take in several steps in which each norm is above the limit; unless a module may be below its floor.

        Where none comes near, what is usual is followed later, for several blocks at once: nobody asks meanwhile.

        Args:
            norms: consumed, ``[steps, modules]``.
            wholes: those of the optimizer, ``[steps]``.
            smallest: none of these norms is smaller.
            largest: nor of these wholes larger.
        """
        if smallest > self._above_floors * largest and len(self._later) < self._AT_ONCE:
            self._later.append((norms, wholes))
            return True
        self._catch_up()
        sizes = logarithms(norms, wholes)
        trail = self._trail(sizes)
        # The floor rises meanwhile, and is nowhere higher than at the end.
        highest = np.maximum(self._highest, np.maximum.reduce(trail))[:, 0]
        if (
            not np.minimum.reduce(sizes[:, :, 0] - highest, axis=None, initial=math.inf)
            > self._CLEARLY - self._LOSS
        ):
            return False
        self._take_trail(trail, sizes)
        return True

    def _catch_up(self) -> None:
        """What was left for later: before another step is taken in, or what is known is read."""
        if self._later:
            norms, wholes = map(np.concatenate, zip(*self._later, strict=True))
            self._later = []
            sizes = logarithms(norms, wholes)
            self._take_trail(self._trail(sizes), sizes)

    def _trail(self, sizes: FloatArray) -> FloatArray:
        """What is usual after each of these steps, ``[steps, modules, 2]`` without a NaN."""
        usual = self.usual if self._all_known else np.where(np.isnan(self.usual), sizes[0], self.usual)
        trail, kept = self._FOLLOWING * sizes, 1.0 - self._FOLLOWING
        for step in trail:
            step += usual * kept
            usual = step
        return trail

    def _take_trail(self, trail: FloatArray, sizes: FloatArray) -> None:
        if self._caps:
            for step, size in zip(trail, sizes, strict=True):
                self._heighten(step, size)
        else:
            np.maximum(self._highest, np.maximum.reduce(trail), out=self._highest)
        self.usual, self._all_known = trail[-1].copy(), True

    def _heighten(self, usual: FloatArray, sizes: FloatArray) -> None:
        np.fmax(self._highest, usual, out=self._highest)
        for place, cap in tuple(self._caps.items()):
            if usual[place, 0] <= cap or sizes[place, 0] > cap:
                del self._caps[place]
            else:
                self._highest[place, 0] = min(self._highest[place, 0], cap)

    def have_lost(self, share: float, place: int) -> bool:
        """Whether a share is no longer what is usual; also where that is not known."""
        usual = float(self.usual[place, 0])
        return math.isnan(usual) or share < math.exp(usual - self._NO_LOSS)

    def take(self, norms: FloatArray, whole: float) -> BoolArray:
        """One more step: which modules are dead, and still below the floor, ``[modules]``.

        Args:
            norms: consumed, ``[modules]``; where it is 0 or missing, it is neither low nor well.
            whole: that of the optimizer.
        """
        there = norms > 0.0
        low: BoolArray = there & (norms < whole * np.exp(self._highest[:, 0] - self._LOSS))
        self._now = norms
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
        return math.hypot(*(whole * np.exp(self._highest[places, 0] - self._LOSS)).tolist())

    def answered(self, causes: Mapping[str, Cause]) -> None:
        """What a look has found of suspects; where it proves nothing, ten times what is there is the highest."""
        for module in [suspect for suspect in self.suspects if suspect in causes]:
            place = self._modules.index(module)
            if causes[module].kind in DEAD:
                self.dead[module], self._well[place] = causes[module], 0
            else:
                self._caps[place] = self._highest[place, 0] = float(self._last[place]) + self._NO_LOSS
                self._low[place] = 0
        self.suspects = tuple(suspect for suspect in self.suspects if suspect not in causes)
        self._settle()

    def weighed(self, places: Sequence[int], found: Cause) -> Cause:
        """A cause that a look has found of these modules, where it took more than half of what they have lost.

        The norm is a product of what comes to the activation and of what that hands on. Under a squared error an
        activation that is right has taken half of its decades: with an error of e, its slope and what comes to it
        fade alike, as 2e. What it took is counted from a slope of 1, and it may have taken a decade when the norm
        was at its highest.
        """
        here = found.evidence.get("decades_lost_here", math.inf)
        highest, now = (math.hypot(*norms[places]) for norms in (np.exp(self._highest[:, 1]), self._now))
        lost = math.log10(highest / now) if 0.0 < now < highest else 0.0
        if not isinstance(here, float) or here - self._NOT_FLAT > lost / 2:
            return found
        evidence = {**found.evidence, "decades_lost_since": lost, "reason": _FADED}
        return cause("unknown", found.where, **evidence)

    def among(self, modules: Sequence[str]) -> Shares:
        """What is known of these modules; the others are forgotten."""
        shares = Shares(*self._after, modules)
        shares.load_state_dict(self.state_dict())
        return shares

    # A share is a norm divided by another one.
    _SHARE = Number(-1600.0, 710.0)
    _SIZES = Row(_SHARE, _SHARE)
    remembers = Named(
        Fields(
            usual=_SIZES,
            highest=_SIZES,
            last=Maybe(_SHARE),
            cap=Maybe(_SHARE),
            low=COUNT,
            well=COUNT,
            dead=Maybe(CAUSE),
        )
    )

    def state_dict(self) -> dict[str, Any]:
        """What is known of each module whose usual share is."""
        self._catch_up()
        return {
            module: {
                "usual": self.usual[place].tolist(),
                "highest": self._highest[place].tolist(),
                "last": None if math.isnan(self._last[place]) else float(self._last[place]),
                "cap": self._caps.get(place),
                "low": int(self._low[place]),
                "well": int(self._well[place]),
                "dead": saved_values(asdict(self.dead[module])) if module in self.dead else None,
            }
            for place, module in enumerate(self._modules)
            if not math.isnan(self.usual[place, 0])
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; what is not among the modules is forgotten."""
        self._all_known, self._later = False, []
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


def logarithms(norms: FloatArray, wholes: FloatArray) -> FloatArray:
    """Those of shares and of norms, as ``Shares`` takes them.

    Args:
        norms: ``[steps, modules]``.
        wholes: of the optimizer, ``[steps]``.

    Returns:
        ``[steps, modules, 2]``
    """
    sizes: FloatArray = np.empty((*norms.shape, 2))
    np.divide(norms, wholes[:, None], out=sizes[:, :, 0])
    sizes[:, :, 1] = norms
    return np.log(sizes, out=sizes)
