"""How often a module has a gradient, and how long a silence is too long for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["Presences"]


class _Presence:
    """One module.

    Attributes:
        alive: steps with a gradient of late.
        silent: steps without one of late, but for the silence that goes on and one before its first gradient.
        silence: steps without one that go on now.
        longest: the longest silence of late that has ended.
        drawn: it was seen to fall silent as another came up, or to come up as another fell silent.
    """

    __slots__ = ("alive", "drawn", "longest", "silence", "silent")

    # Steps after which the past counts half.
    _MEMORY = 512

    def __init__(
        self,
        alive: float = 0.0,
        silent: float = 0.0,
        silence: int = 0,
        longest: float = 0.0,
        drawn: bool = False,
    ) -> None:
        self.alive = alive
        self.silent = silent
        self.silence = silence
        self.longest = longest
        self.drawn = drawn

    def hear(self) -> None:
        # A silence before the first gradient tells nothing of how often it comes: a layer behind another that
        # starts from zero has none in its first step.
        if self.silence:
            if self.alive:
                self.silent += self.silence
                self.longest = max(self.longest, self.silence)
            self.silence = 0
        self.alive += 1.0
        if self.alive + self.silent >= self._MEMORY:
            self.alive /= 2
            self.silent, self.longest = (self.silent / 2, self.longest / 2) if self.silent >= 1.0 else (0.0, 0.0)


class Presences:
    """The modules of one optimizer.

    A loop may train its heads in turn, or draw one of them at random: a module then has no gradient for some
    steps, and nothing is wrong. Where modules are seen to come and go, a silence counts only once it is so
    long that a module drawn with its frequency would have come up, but for one chance in ``1 / _CHANCE``.
    """

    _CHANCE = 1e-8
    # Times the longest gap of late: where gaps grow longer, as between the errors of a model that learns, the
    # frequency of late lags behind.
    _GAPS = 6.0
    # So many steps with a gradient and none without: it is not drawn, whatever else changed as it fell silent.
    _ALWAYS = 32

    def __init__(self) -> None:
        self._modules: dict[str | None, _Presence] = {}
        # How many are drawn, or were never heard and may be; and whether any is drawn.
        self._may_be_drawn = 0
        self._some_are_drawn = False

    def take(self, heard: Iterable[str | None], silent: Iterable[str | None]) -> None:
        """These modules have a gradient in this step, and those have none."""
        came = []
        for module in heard:
            presence = self._of(module)
            if presence.silence:
                came.append(presence)
            presence.hear()
        went = []
        for module in silent:
            presence = self._of(module)
            presence.silence += 1
            if presence.silence == 1 and presence.alive:
                went.append(presence)
        if came and went:
            for presence in (*came, *went):
                presence.drawn = True
            self._some_are_drawn = True
        self._count()

    def silence(self, module: str | None) -> int:
        """For how many steps running it has had no gradient."""
        return self._of(module).silence

    def pauses_like_others(self, module: str | None) -> bool:
        """Whether another module has fallen silent too after it was heard, and not as this one did."""
        own = self._of(module)
        return not self._is_always_heard(own) and any(
            other.alive and (other.silent or other.silence) and other.silence != own.silence
            for other in self._modules.values()
            if other is not own
        )

    def patience(self, module: str | None, at_least: int) -> int:
        """How many steps of silence are too many for this module."""
        own = self._of(module)
        share = self._share(own)
        if share == 1.0:
            return at_least
        gaps = math.ceil(self._GAPS * own.longest)
        return max(at_least, gaps, math.ceil(math.log(self._CHANCE) / math.log1p(-share)))

    def _share(self, own: _Presence) -> float:
        """The share of the steps in which it should be heard, guessed low; 1.0 where it should be in every one."""
        if self._is_always_heard(own):
            return 1.0
        share = own.alive / (own.alive + own.silent + 1.0) if own.silent else 1.0
        if own.drawn:
            # A few steps tell little of a frequency: one in so many, unless it was heard far more often.
            return min(share, own.alive / (own.alive + 2 * self._may_be_drawn))
        # Never heard so far: where others are drawn, it may be one that has not come up yet.
        if not own.alive and self._some_are_drawn:
            return 1.0 / (1.0 + self._may_be_drawn)
        return share

    def _is_always_heard(self, own: _Presence) -> bool:
        return not own.silent and own.alive >= self._ALWAYS

    def _count(self) -> None:
        self._may_be_drawn = sum(1 for other in self._modules.values() if other.drawn or not other.alive)

    def _of(self, module: str | None) -> _Presence:
        presence = self._modules.get(module)
        if presence is None:
            presence = self._modules[module] = _Presence()
        return presence

    def state_dict(self) -> list[list[Any]]:
        """What is known of each module, as plain values."""
        return [[name, p.alive, p.silent, p.silence, p.longest, p.drawn] for name, p in self._modules.items()]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._modules = {name: _Presence(*numbers) for name, *numbers in state}
        self._some_are_drawn = any(presence.drawn for presence in self._modules.values())
        self._count()
