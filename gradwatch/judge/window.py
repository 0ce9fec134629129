"""The newest values of a run, and how they lie in order of size."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

__all__ = ["Window"]


class Window:
    """The newest values.

    To put them in order costs more than what else a rule does with a healthy block. How they lay some values ago
    tells enough, mostly: with each value that has come since, none of them has moved by more than one place.

    Attributes:
        values: oldest first.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = list(values)
        self._ordered = sorted(self.values)
        self._since = 0

    def __len__(self) -> int:
        return len(self.values)

    def add(self, value: float, most: int) -> None:
        """Take a value in, and let go of the oldest, so that there are no more than so many."""
        ordered = self.ordered
        self.values.append(value)
        insort(ordered, value)
        while len(self.values) > most:
            del ordered[bisect_left(ordered, self.values.pop(0))]

    def add_all(self, several: Sequence[float], most: int) -> None:
        """The same with several."""
        self.values = [*self.values, *several][-most:]
        self._since += len(several)

    @property
    def ordered(self) -> list[float]:
        """In order of size."""
        if self._since:
            self._ordered, self._since = sorted(self.values), 0
        return self._ordered

    def is_at_least(self, place: int, value: float) -> bool:
        """Whether none is at this place in order of size, or one that is no smaller than this."""
        if place >= len(self.values):
            return True
        earlier = place - self._since
        return (earlier >= 0 and self._ordered[earlier] >= value) or (place >= 0 and self.ordered[place] >= value)
