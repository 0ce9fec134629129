"""What the rule ``zero`` remembers of one optimizer, and so which of its modules are silent for too long."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import and_
from typing import Any

from gradwatch.blocks import Block, BoolArray
from gradwatch.judge.flickers import Flickers
from gradwatch.judge.left_out import LeftOut
from gradwatch.judge.naming import Naming
from gradwatch.judge.presence import Presences
from gradwatch.judge.rounding import Rounding
from gradwatch.judge.silence import Modules, flags, modules_of, named
from gradwatch.judge.silent import Known
from gradwatch.judge.unreached import Unreached
from gradwatch.shapes import COUNT, LOGARITHM, NAME, Fields, Listed, Maybe, Row

__all__ = ["Memory"]

# How fast the level of norms is followed: about the last ten steps.
_FOLLOWING = 0.1

# The first steps of a silence are looked into; later only one in so many: it costs a look at every name.
_CLOSELY, _STRIDE = 8, 64


class Memory:
    """What is remembered of one optimizer.

    Args:
        fires_after: steps in which a module is exactly 0 before it is told of.
        clears_after: steps running with a gradient before a name is given up.
        unreached_after: steps running for which a silence may be doubted.

    Attributes:
        presences: how often each module has a gradient.
        level: logarithm of the norm of late; -inf before the first.
        highest: the highest that the level has been.
        zeros: in how many steps each module was exactly 0 since it was last alive.
        dead: modules that were heard, have fallen silent and are told of: only health ends that.
        known: what was found out of each silent module.
        naming: under which names silent modules are told of.
        told: what was found out of those that bear a name together, and which these were.
        left_out: the parameters of its modules that no optimizer holds.
        unreached: the parameters that have no gradient inside modules that learn.
        rounding: the modules whose gradient may be nothing but rounding errors.
        flickers: those that are 0 in most steps, and not in others.
        is_bare: no module holds any of its parameters.
    """

    def __init__(self, fires_after: int, clears_after: int, unreached_after: int) -> None:
        self._fires_after, self._unreached_after = fires_after, unreached_after
        self.presences = Presences(fires_after)
        self.level = self.highest = -math.inf
        self.zeros: dict[str | None, int] = {}
        self.dead: dict[str | None, None] = {}
        self.known: dict[str | None, Known] = {}
        self.naming = Naming(clears_after)
        self.told: dict[str | None, tuple[list[str | None], Known]] = {}
        self.left_out = LeftOut(fires_after, clears_after)
        self.unreached = Unreached(unreached_after)
        self.rounding = Rounding()
        self.flickers = Flickers(clears_after)
        self.is_bare = False

    def take(self, modules: Modules, silent: Modules, low: Modules, norm_before: float) -> dict[str | None, int]:
        """Take in a step: the modules that have been silent for too long, and for how many steps beyond what is.

        Args:
            modules: all that could be silent.
            silent: those exactly 0, or missing.
            low: those, and what is next to nothing.
            norm_before: of the whole.
        """
        if len(silent) < len(modules) and 0.0 < norm_before < math.inf:
            self._follow([math.log(norm_before)])
        if self.dead:
            # Of a state that was saved, also what there is no more.
            self.dead = {m: None for m in self.dead if m in self.naming and m in modules}
        self.flickers.take(silent, self.naming, 1)
        # What was told as dead is not heard again until it has come back to stay.
        quiet = tuple(dict.fromkeys((*low, *self.dead))) if self.dead else low
        self.presences.take(modules, quiet, self.dead)
        if not quiet:
            if self.zeros:
                self.zeros, self.known, self.told = {}, {}, {}
            return {}
        zeros = set(silent)
        self.zeros = {module: self.zeros.get(module, 0) + (module in zeros) for module in quiet}
        return dict(self._beyond(low, zeros))

    def take_calm(self, modules: Modules, logarithms: Sequence[float]) -> None:
        """Take in steps in which nobody is silent, and of which nobody was who is told of.

        Args:
            modules: all that could be silent.
            logarithms: of the norms before clipping, one for each step.
        """
        self._follow(logarithms)
        self.presences.take(modules, (), steps=len(logarithms))
        self.flickers.take((), self.naming, len(logarithms))

    def take_alike(self, block: Block, start: int) -> int:
        """Take in the steps in which the same is found as in the one before them; how many these are."""
        logarithms = block.logarithms
        if logarithms is None or not self.is_settled:
            return 0
        flagged, modules = flags(block, self.rounding) or (), modules_of(block)
        steps = _alike(block, start, flagged, self.left_out)
        silent, low = [named(modules, kind[start - 1]) for kind in flagged] or ((), ())
        if steps <= 0 or len(silent) == len(modules) or self.unreached.may_find(block, start):
            return 0
        zeros = set(silent)
        ill = dict(self._beyond(low, zeros))
        steps = min(steps, self._until_due(ill, zeros))
        # Whoever has just come back to stay is dead no more from the next step on.
        are_told = self.naming.are_borne_by(ill) and self.dead.keys() <= ill.keys()
        if not (steps and are_told and self.flickers.are_told(self.naming)):
            return 0
        self._follow(logarithms[start : start + steps])
        self.flickers.take(silent, self.naming, steps)
        self.presences.take(modules, low, self.dead, steps)
        self.zeros = {module: self.zeros[module] + steps * (module in zeros) for module in low}
        self.unreached.take_on(block, start, steps)
        return steps

    def is_due(self, module: str | None, beyond: int, is_zero: bool) -> bool:
        """Whether a module that is silent for too long is to be looked into in this step.

        Args:
            module: the module.
            beyond: for how many steps beyond what is usual.
            is_zero: it is exactly 0, or missing.
        """
        # What is told now may have been known for long: of one that was missing once, and then next to nothing.
        closely = beyond <= _CLOSELY or beyond % _STRIDE == 0 or module not in self.naming
        return module not in self.known or (is_zero and closely)

    def _until_due(self, ill: Mapping[str | None, int], zeros: Collection[str | None]) -> int:
        """Steps in which time alone changes nothing of what is found of these modules."""
        looked_at = [beyond for module, beyond in ill.items() if module in zeros]
        is_new = any(self.presences.silence(module) <= self._unreached_after for module in ill)
        if is_new or any(beyond <= _CLOSELY for beyond in looked_at):
            return 0
        return min((_STRIDE - 1 - beyond % _STRIDE for beyond in looked_at), default=_STRIDE)

    def _beyond(self, low: Modules, zeros: Collection[str | None]) -> Iterator[tuple[str | None, int]]:
        for module in low:
            lasts = self.presences.silence(module)
            if module in self.dead or module in self.rounding.shown:
                yield module, lasts
            elif module in zeros and self.zeros[module] >= self._fires_after:
                beyond = lasts - self.presences.patience(module)
                if beyond >= 0:
                    yield module, beyond

    def _follow(self, logarithms: Sequence[float]) -> None:
        """Take in norms of the whole; what is 0 or not finite has none, and no level."""
        level, highest = self.level, self.highest
        if level == -math.inf:
            level = logarithms[0]
        for logarithm in logarithms:
            level += _FOLLOWING * (logarithm - level)
            if level > highest:
                highest = level
        self.level, self.highest = level, highest

    def has_faded(self, share: float) -> bool:
        """Whether the level of late is below this share of the highest."""
        return self.level < self.highest + math.log(share)

    @property
    def is_quiet(self) -> bool:
        """Nothing is or was of late silent, or left out, and the first steps are over."""
        ills = self.zeros or self.dead or self.naming or self.left_out or self.unreached.looks
        return not (ills or self.flickers.shown) and self.is_settled

    @property
    def is_settled(self) -> bool:
        """Whether the first steps of its modules are over, if it has any."""
        return self.is_bare or self.rounding.is_settled

    remembers = Fields(
        presences=Presences.remembers,
        names=Naming.remembers,
        zeros=Listed(Row(NAME, COUNT)),
        dead=Listed(NAME),
        left_out=LeftOut.remembers,
        unreached=Maybe(Presences.remembers),
        rounding=Rounding.remembers,
        flickers=Flickers.remembers,
        level=Maybe(Row(LOGARITHM, LOGARITHM)),
    )

    def state_dict(self) -> dict[str, Any]:
        """As plain values; what was found out is found out again."""
        return {
            "presences": self.presences.state_dict(),
            "names": self.naming.state_dict(),
            "zeros": [[module, steps] for module, steps in self.zeros.items()],
            "dead": list(self.dead),
            "left_out": self.left_out.state_dict(),
            "unreached": self.unreached.state_dict(),
            "rounding": self.rounding.state_dict(),
            "flickers": self.flickers.state_dict(),
            "level": None if self.level == -math.inf else [self.level, self.highest],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.presences.load_state_dict(saved["presences"])
        self.naming.load_state_dict(saved["names"])
        self.zeros, self.dead = dict(map(tuple, saved["zeros"])), dict.fromkeys(saved["dead"])
        self.left_out.load_state_dict(saved["left_out"])
        self.unreached.load_state_dict(saved["unreached"])
        self.rounding.load_state_dict(saved.get("rounding", {}))
        self.flickers.load_state_dict(saved["flickers"])
        if saved["level"] is not None:
            self.level, self.highest = saved["level"]


def _alike(block: Block, start: int, flagged: Iterable[BoolArray], left_out: LeftOut) -> int:
    """How many steps from this one on are as the one before it, but for their norms."""
    rows = block.rows[start - 1 :]
    same = [row.facts is rows[0].facts and not row.skipped and left_out.goes_on(row.left_out) for row in rows]
    for kind in flagged:
        same = list(map(and_, same, (kind[start - 1 :] == kind[start - 1]).all(axis=1).tolist()))
    return [*same, False].index(False) - 1
