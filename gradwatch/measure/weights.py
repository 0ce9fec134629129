"""Whether the weights of an optimizer have changed, as their versions tell: no value is read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gradwatch.measure.sharding.parts import versions_of

__all__ = ["Weights"]


class Weights:
    """The weights as they were when they were noted last.

    Attributes:
        noted: when that was, by the clock of whoever notes them; 0 before the first time.
    """

    def __init__(self) -> None:
        self.noted = 0
        self._versions = list[int]()

    def note(self, parameters: Sequence[Tensor], now: int) -> None:
        """Note them as they are now."""
        self.noted, self._versions = now, list(versions_of(parameters))

    def have_changed(self, parameters: Sequence[Tensor]) -> bool:
        """Whether they are others than those noted."""
        return list(versions_of(parameters)) != self._versions
