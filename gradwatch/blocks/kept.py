"""The newest steps, held for long: so many of them, in so many bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from gradwatch.blocks.block import Block
from gradwatch.blocks.layout import Layout
from gradwatch.blocks.steps import Steps
from gradwatch.records import StepRecord

__all__ = ["Kept"]


class _Entry(NamedTuple):
    """Steps that came together, in blocks of which nothing was worked out."""

    steps: Steps
    nbytes: int


class Kept:
    """Holds the newest steps. What came together goes together: so it costs next to nothing a step.

    Args:
        most: steps.
        most_bytes: what they may take up; the newest block is held whatever it is.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: deque[_Entry] = deque()
        self._layouts: dict[str, Layout] = {}
        self._seen = self._steps = self._bytes = 0

    @property
    def missing(self) -> int:
        """Steps that it would hold if they took up less."""
        return min(self._seen, self._most) - min(self._steps, self._most)

    def take(self, steps: Steps) -> None:
        """Take in what is newer than all before."""
        count = len(steps)
        if not self._most or not count:
            return
        nbytes = sum(map(self._size_of, steps.sequences))
        self._entries.append(_Entry(_fresh(steps), nbytes))
        self._seen += count
        self._steps += count
        self._bytes += nbytes
        self._let_go()

    def steps(self) -> Steps:
        """Those that are held, oldest first; what is worked out of them goes with what is given."""
        # A copy of its kind, since nothing can come between its parts: to make a tuple may collect garbage, run
        # whatever is done then, and let a training loop add a step.
        return _fresh(Steps.joined(entry.steps for entry in self._entries.copy())[-self._most :])

    def _let_go(self) -> None:
        """What is not needed any more, and what does not fit."""
        while self._steps - len(self._entries[0].steps) >= self._most:
            self._forget_oldest()
        while self._bytes > self._most_bytes and len(self._entries) > 1:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = self._entries.popleft()
        self._steps -= len(oldest.steps)
        self._bytes -= oldest.nbytes

    def _size_of(self, held: Sequence[StepRecord]) -> int:
        if not isinstance(held, Block):
            return 1000 + 32 * len(held[0].parameters)
        layout = held.layout
        known = self._layouts.get(layout.optimizer)
        self._layouts[layout.optimizer] = layout
        return held.nbytes + (0 if known is layout else layout.nbytes)


def _fresh(steps: Steps) -> Steps:
    """The same steps, in blocks of which nothing was worked out."""
    fresh = {id(held): held.fresh() if isinstance(held, Block) else held for held in steps.sequences}
    held, places = (map(itemgetter(part), steps.pairs) for part in (0, 1))
    return Steps(zip(map(fresh.__getitem__, map(id, held)), places, strict=True))
