"""Steps that several ranks have a part of each: added up by blocks, and nobody is waited for until the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from gradwatch.blocks import FloatArray
from gradwatch.log import log
from gradwatch.measure.sharding.ranks import Peers, Reduction
from gradwatch.measure.sharding.shares import Landed, as_shares, is_of_all, size_of, take_sums

__all__ = ["RankSums"]

S = TypeVar("S", bound=Landed)


class _Sum(NamedTuple, Generic[S]):
    """A block of steps that the ranks add up."""

    reduction: Reduction
    steps: list[S]


class RankSums(Generic[S]):
    """Steps whose numbers are this rank's, until those of the others are added.

    Args:
        peers: the ranks to add up with.
        block: steps that are added up together, the same on every rank.

    Attributes:
        dropped: steps of which no whole norm could be had, since other ranks were gone.
    """

    # A rank that is so many blocks behind this one does not track any more.
    MOST_UNDER_WAY = 16

    def __init__(self, peers: Peers, block: int) -> None:
        self._peers = peers
        self._size = block
        self._lost = self._together = False
        self._block: list[S] = []
        self._sums: deque[_Sum[S]] = deque()
        self._whole: deque[S] = deque()
        self.dropped = 0

    def put(self, step: S) -> None:
        """Take in the next step; it is changed in place."""
        if self._lost:
            self.dropped += 1
            return
        self._block.append(step)
        if len(self._block) == self._size:
            self._add_up()

    def whole(self) -> Iterator[S]:
        """The steps that are added up by now, oldest first."""
        yield from self._leaving()
        while self._sums and self._sums[0].reduction.ready():
            total = self._sums[0].reduction.total()
            if total is None:
                self._lose()
            else:
                self._whole.extend(self._whole_steps(self._sums.popleft().steps, total))
                yield from self._leaving()

    def on_any(self, here: bool) -> bool:
        """Whether something is so on any rank; waits for them."""
        return here if self._lost else self._peers.on_any(here)

    def last(self, normally: bool) -> Iterator[S]:
        """What is left at the end; the last sum is formed where all ranks end normally."""
        if self._lost:
            return
        self._together = self._peers.leave(normally)
        if self._together:
            self._add_up()
            # Every rank has begun all of them: with the last one the others are done.
            if self._sums:
                self._sums[-1].reduction.wait(self._peers.PATIENCE)
        yield from self.whole()

    def part(self) -> None:
        """The end: from ranks that have all of their sums, or else for good."""
        if self._lost:
            return
        if not self._together:
            self._peers.leave(normally=False)
        self._give_up()
        if self.dropped:
            log.warning("gradwatch has no record of %d steps: not all ranks gave their shares.", self.dropped)

    def _add_up(self) -> None:
        if self._sums and (len(self._sums) == self.MOST_UNDER_WAY or self._peers.has_lost_one()):
            self._lose()
        elif self._block:
            steps, self._block = self._block, []
            shares = np.concatenate([as_shares(step) for step in steps])
            self._sums.append(_Sum(self._peers.reduce(shares), steps))

    def _leaving(self) -> Iterator[S]:
        """One by one, so that whoever ends the loop over them, as an interrupt does, leaves the rest in place."""
        while self._whole:
            yield self._whole.popleft()

    def _whole_steps(self, steps: Sequence[S], total: FloatArray) -> Iterator[S]:
        start = 0
        for step in steps:
            sums = total[start : start + size_of(step)]
            start += size_of(step)
            if is_of_all(step, sums, self._peers.members):
                take_sums(step, sums)
                yield step
            else:
                self.dropped += 1

    def _lose(self) -> None:
        """Another rank is gone: no sum will be whole again. Those that wait for this one have to know."""
        self._lost = True
        self._peers.leave(normally=False)
        self._give_up()
        log.warning(
            "gradwatch has no records of steps from now on, and none of the last %d: another rank has ended or "
            "has stopped tracking, and norms cannot be added up.",
            self.dropped,
        )

    def _give_up(self) -> None:
        """Drop what waits for other ranks, and the connections."""
        self.dropped += len(self._block) + sum(len(under_way.steps) for under_way in self._sums)
        self._block = []
        self._sums.clear()
        self._peers.close(self._together)
