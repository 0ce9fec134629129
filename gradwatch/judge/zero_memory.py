"""What the rule ``zero`` remembers of one optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradwatch.judge.flickers import Flickers
from gradwatch.judge.left_out import LeftOut
from gradwatch.judge.naming import Naming
from gradwatch.judge.presence import Presences
from gradwatch.judge.rounding import Rounding
from gradwatch.judge.silent import Known
from gradwatch.judge.unreached import Unreached
from gradwatch.shapes import COUNT, LOGARITHM, NAME, Fields, Listed, Maybe, Row

__all__ = ["Memory"]

# How fast the level of norms is followed: about the last ten steps.
_FOLLOWING = 0.1


class Memory:
    """What is remembered of one optimizer.

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
        self.presences = Presences(fires_after)
        self.level = self.highest = -math.inf
        self.zeros: dict[str | None, int] = {}
        self.dead: dict[str | None, None] = {}
        self.known: dict[str | None, Known] = {}
        self.naming = Naming(clears_after)
        self.told: dict[str | None, tuple[list[str | None], Known]] = {}
        self.left_out = LeftOut(fires_after)
        self.unreached = Unreached(unreached_after)
        self.rounding = Rounding()
        self.flickers = Flickers(clears_after)
        self.is_bare = False

    def follow(self, logarithms: Sequence[float]) -> None:
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
        self.unreached.load_state_dict(saved["unreached"])
        self.rounding.load_state_dict(saved.get("rounding", {}))
        self.flickers.load_state_dict(saved["flickers"])
        if saved["level"] is not None:
            self.level, self.highest = saved["level"]
