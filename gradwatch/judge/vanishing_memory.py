"""What the rule ``vanishing`` remembers of one optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gradwatch.judge.naming import Naming
from gradwatch.judge.scale import Streaks
from gradwatch.judge.shares import Shares
from gradwatch.records import Cause
from gradwatch.shapes import Fields, Named

__all__ = ["Memory"]


class Memory:
    """What is remembered of one optimizer.

    Attributes:
        modules: names of the modules.
        shares: what each usually has of the norm, and who has lost so much of it that it may be dead.
        streaks: for how long each has been next to nothing.
        naming: under which names those are told of that have vanished.
        told: the names under which some were at the step that was looked at last, why, and whether critically.
    """

    def __init__(self, fires_after: int, clears_after: int) -> None:
        self.modules: tuple[str, ...] = ()
        self.shares = Shares(fires_after, clears_after)
        self.streaks = Streaks()
        self.naming = Naming(clears_after)
        self.told: dict[str | None, tuple[Cause | None, bool]] = {}

    @property
    def is_clear(self) -> bool:
        """Nothing is or was of late next to nothing, or has lost most of its share."""
        return not (self.streaks.any or self.naming) and self.shares.are_well

    def why(self, places: Iterable[int]) -> Cause | None:
        """What a look has shown of these modules."""
        shown = (self.shares.dead.get(self.modules[place]) for place in places)
        return next(filter(None, shown), None)

    def rename(self, modules: tuple[str, ...]) -> None:
        """Modules have come, or were taken away: what is known of these is forgotten."""
        streaks, self.shares = self.streaks.state_dict(self.modules), self.shares.among(modules)
        self.modules = modules
        self.streaks.load_state_dict(streaks, modules)

    remembers = Fields(shares=Shares.remembers, names=Naming.remembers, streaks=Named(Streaks.remembers))

    def state_dict(self) -> dict[str, Any]:
        """The usual share of each module, names and streaks of those that have vanished, as plain values."""
        return {
            "shares": self.shares.state_dict(),
            "names": self.naming.state_dict(),
            "streaks": self.streaks.state_dict(self.modules),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.shares.load_state_dict(saved["shares"])
        self.streaks.load_state_dict(saved["streaks"], self.modules)
        self.naming.load_state_dict(saved["names"])
