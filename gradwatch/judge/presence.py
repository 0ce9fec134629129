"""How often a module has a gradient, and how long a silence is too long for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from gradwatch.paths import highest
from gradwatch.shapes import COUNT, FLAG, NAME, Listed, Number, Row, That

__all__ = ["Presences"]


class _Presence:
    """One module.

    Attributes:
        alive: steps with a gradient of late.
        silent: steps without one of late, but for the silence that goes on and one before its first gradient.
        longest: the longest silence of late that has ended.
        drawn: it was seen to fall silent as another came up, or to come up as another fell silent.
        heard: it has a gradient now.
        ill: the silence that goes on is an illness: what is seen of it tells nothing of how often it is heard.
        since: the step after which that began, or, where it is heard, up to which the other numbers tell.
    """

    __slots__ = ("alive", "drawn", "heard", "ill", "longest", "silent", "since")

    # Steps after which the past counts half.
    _MEMORY = 512

    def __init__(
        self, since: int, alive: float = 0.0, silent: float = 0.0, longest: float = 0.0, drawn: bool = False
    ) -> None:
        self.alive = alive
        self.silent = silent
        self.longest = longest
        self.drawn = drawn
        self.heard = True
        self.ill = False
        self.since = since

    def catch_up(self, step: int) -> None:
        """Count the steps up to this one, where it was heard in all of them."""
        if not self.heard:
            return
        count, self.since = step - self.since, step
        while count > 0:
            until_full = max(math.ceil(self._MEMORY - self.alive - self.silent), 1)
            taken = min(count, until_full)
            self.alive += taken
            count -= taken
            if self.alive + self.silent >= self._MEMORY:
                self._halve()

    def fall_silent(self, step: int) -> None:
        self.catch_up(step)
        self.heard = False

    def come_up(self, step: int) -> None:
        # A silence before the first gradient tells nothing of how often it comes: a layer behind another that
        # starts from zero has none in its first step.
        if self.alive and not self.ill:
            silence = step - self.since
            self.silent += silence
            self.longest = max(self.longest, silence)
        self.heard, self.ill, self.since = True, False, step

    def _halve(self) -> None:
        self.alive /= 2
        self.silent, self.longest = (self.silent / 2, self.longest / 2) if self.silent >= 1.0 else (0.0, 0.0)


class Presences:
    """The modules of one optimizer.

    A loop may train its heads in turn, or draw one of them at random: a module then has no gradient for some
    steps, and nothing is wrong. Where modules are seen to come and go, a silence counts only once it is so
    long that a module drawn with its frequency would have come up, but for one chance in ``1 / _CHANCE``.

    A net may start from zeros and open one layer after another: what is behind a layer of zeros has its first
    gradient a step after it has its own, and one step later still where the rate is 0 in the first. So when one is
    heard for the first time, the silence of those that never were counts anew, unless it was too long already.

    A step costs as much as there are modules that are silent or cease to be: others are counted when asked for.

    Args:
        at_least: fewer steps of silence are never too many.
    """

    _CHANCE = 1e-8
    # Times the longest gap of late: where gaps grow longer, as between the errors of a model that learns, the
    # frequency of late lags behind.
    _GAPS = 6.0
    # So many steps with a gradient and none without: it is not drawn, whatever else changed as it fell silent.
    _ALWAYS = 32

    def __init__(self, at_least: int) -> None:
        self._at_least = at_least
        self._names: Sequence[str | None] = ()
        self._modules: dict[str | None, _Presence] = {}
        self._silent: dict[str | None, _Presence] = {}
        self._step = 0
        self._some_are_drawn = False
        # How many are drawn, or were never heard and may be; None where that has to be counted.
        self._counted: int | None = None

    def take(
        self,
        names: Sequence[str | None],
        silent: Collection[str | None],
        ill: Iterable[str | None] = (),
        steps: int = 1,
    ) -> None:
        """Take in a step, or several that are alike.

        Args:
            names: of the modules.
            silent: those that have no gradient, or are ill.
            ill: those of them whose silence is known to be an illness.
            steps: how many there are.
        """
        if names is not self._names and names != self._names:
            self._rename(names)
        if silent or self._silent:
            for name in ill:
                self._modules[name].ill = True
            went = self._falling_silent(silent)
            before = len(self._silent)
            came = self._coming_up(silent)
            if came and went:
                for presence in (*came, *went):
                    presence.drawn = True
                self._some_are_drawn = True
            if went or before != len(self._silent):
                self._counted = None
        self._step += steps

    def silence(self, module: str | None) -> int:
        """For how many steps running it has had no gradient, or since another had its first."""
        return self._lasts(self._modules[module])

    def was_heard(self, module: str | None) -> bool:
        """Whether it has ever had a gradient, and is not drawn."""
        own = self._modules[module]
        return own.alive > 0.0 and not own.drawn

    def pauses_like_others(self, module: str | None) -> bool:
        """Whether another module has fallen silent too after it was heard, and not as this one did."""
        own = self._modules[module]
        self._catch_up()
        return not self._is_always_heard(own) and any(
            other.alive and (other.silent or not other.heard) and self._lasts(other) != self._lasts(own)
            for other in self._modules.values()
            if other is not own
        )

    def patience(self, module: str | None) -> int:
        """How many steps of silence are too many for this module."""
        own = self._modules[module]
        share = self._share(own)
        if share == 1.0:
            return self._at_least
        gaps = math.ceil(self._GAPS * own.longest)
        return max(self._at_least, gaps, math.ceil(math.log(self._CHANCE) / math.log1p(-share)))

    def _falling_silent(self, silent: Iterable[str | None]) -> list[_Presence]:
        """Those that were heard before."""
        went = []
        for name in silent:
            if name not in self._silent:
                presence = self._silent[name] = self._modules[name]
                presence.fall_silent(self._step)
                went += [presence] if presence.alive else []
        return went

    def _coming_up(self, silent: Collection[str | None]) -> list[_Presence]:
        """Those that were silent before, and not ill."""
        if len(silent) == len(self._silent):
            return []
        still = set(silent)
        came = [self._silent.pop(name) for name in list(self._silent) if name not in still]
        taught = [presence for presence in came if not presence.ill]
        if any(not presence.alive for presence in came):
            self._wait_anew()
        for presence in came:
            presence.come_up(self._step)
        return taught

    def _wait_anew(self) -> None:
        """One is heard for the first time: those behind it may be next."""
        for presence in self._silent.values():
            if not presence.alive and self._lasts(presence) < self._at_least:
                presence.since = self._step

    def _share(self, own: _Presence) -> float:
        """The share of the steps in which it should be heard, guessed low; 1.0 where it should be in every one."""
        own.catch_up(self._step)
        if self._is_always_heard(own):
            return 1.0
        share = own.alive / (own.alive + own.silent + 1.0) if own.silent else 1.0
        if own.drawn:
            # A few steps tell little of a frequency: one in so many, unless it was heard far more often.
            return min(share, own.alive / (own.alive + 2 * self._may_be_drawn()))
        # Never heard so far: where others are drawn, it may be one that has not come up yet.
        if not own.alive and self._some_are_drawn:
            return 1.0 / (1.0 + self._may_be_drawn())
        return share

    def _is_always_heard(self, own: _Presence) -> bool:
        return not own.silent and own.alive >= self._ALWAYS

    def _may_be_drawn(self) -> int:
        """How many are drawn, or were never heard: the modules of one head, which share their lot, count once."""
        if self._counted is None:
            self._catch_up()
            drawn = {(p.alive, p.silent, p.longest, p.since) for p in self._modules.values() if p.drawn}
            never = [name for name, p in self._modules.items() if not p.drawn and not p.alive]
            self._counted = len(drawn) + (1 if None in never else len(highest(_named(never), _named(self._names))))
        return self._counted

    def _lasts(self, presence: _Presence) -> int:
        return 0 if presence.heard else self._step - presence.since

    def _catch_up(self) -> None:
        for presence in self._modules.values():
            presence.catch_up(self._step)

    def _rename(self, names: Sequence[str | None]) -> None:
        """Modules have come, or were taken away: what is known of these is forgotten."""
        self._names = names
        self._modules = {name: self._modules.get(name) or _Presence(self._step) for name in names}
        self._silent = {name: p for name, p in self._silent.items() if name in self._modules}
        self._counted = None

    _STEPS = Number(0.0, 1e15)
    remembers = Listed(
        That(
            Row(NAME, _STEPS, _STEPS, COUNT, _STEPS, FLAG, FLAG),
            lambda row: _is_possible(row),
            "that of a module that was heard, or a new one's,",
        )
    )

    def state_dict(self) -> list[list[Any]]:
        """What is known of each module, as plain values."""
        self._catch_up()
        return [
            [name, p.alive, p.silent, self._lasts(p), p.longest, p.drawn, p.ill]
            for name, p in self._modules.items()
        ]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._step, self._counted = 0, None
        self._modules, self._silent = {}, {}
        for name, alive, silent, silence, longest, drawn, ill in state:
            presence = self._modules[name] = _Presence(-silence, alive, silent, longest, drawn)
            presence.ill = ill
            if silence:
                presence.heard = False
                self._silent[name] = presence
        self._names = tuple(self._modules)
        self._some_are_drawn = any(presence.drawn for presence in self._modules.values())


def _is_possible(row: Sequence[Any]) -> bool:
    """Whether what was never heard has no past: of what was, hardly less than half a step is ever left."""
    _, alive, silent, _, longest, drawn, _ = row
    return bool(alive > 0.01 or not (alive or silent or longest or drawn))


def _named(names: Iterable[str | None]) -> list[str]:
    return [name for name in names if name is not None]
