"""Steps on their way to being records: first their numbers land from the devices, then the ranks add them up.

Steps leave in the order in which they were taken. In the training loop it is asked what has arrived and nothing
is waited for. A reader waits for the devices of this rank, but for no other rank: one that waits for this one in
the training would never come. Only at the end are the last sums waited for, once all ranks have said that they
are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gradwatch.blocks import FloatArray
from gradwatch.log import log
from gradwatch.measure.pending import LandedStep, PendingStep
from gradwatch.measure.sharding.ranks import Peers, Reduction
from gradwatch.measure.sharding.shares import as_shares, is_of_all, size_of, take_sums

__all__ = ["StepQueue"]


class _Sum(NamedTuple):
    """A block of steps that the ranks add up."""

    reduction: Reduction
    steps: list[LandedStep]


class StepQueue:
    """Steps taken and not yet reported.

    Args:
        peers: the ranks to add up with; None where every gradient is whole on this rank.

    Attributes:
        dropped: steps of which no whole norm could be had, since other ranks were gone; and those that came while
            too many waited for somebody who reads and does not come to an end.
    """

    # Every rank adds up after the same steps, whatever has arrived where by then.
    BLOCK = 16

    # A rank that is so many blocks behind this one does not track any more.
    MOST_UNDER_WAY = 16

    # What may wait. Where ranks add up, none may be left out on one of them alone.
    BYTES = 64 << 20
    # What a step takes up besides its norms.
    A_STEP = 1000

    def __init__(self, peers: Peers | None = None) -> None:
        self._peers = peers
        self._lost = False
        self._steps: deque[PendingStep] = deque()
        self._block: list[LandedStep] = []
        self._sums: deque[_Sum] = deque()
        self._whole: deque[LandedStep] = deque()
        self.dropped = 0

    def put(self, step: PendingStep) -> int:
        """Take in the newest step, if it fits; how many there are now."""
        waiting = len(self._steps)
        if waiting * (self.A_STEP + 2 * len(step.before)) > self.BYTES and self._peers is None:
            self.dropped += 1
            return waiting
        self._steps.append(step)
        return waiting + 1

    @property
    def has_arrived(self) -> bool:
        """Whether the oldest step is there; asked, not waited for."""
        return bool(self._steps) and self._steps[0].ready()

    def arrived(self) -> Iterator[LandedStep]:
        """The steps that are whole by now, oldest first."""
        steps = self._steps
        if self._peers is None:
            # Nearly always a step waits for nothing: no call is made to be told so.
            while steps and (steps[0].awaited is None or steps[0].ready()):
                yield steps.popleft().landed()
            return
        while steps and steps[0].ready():
            yield from self._landed(steps.popleft())
        yield from self._added_up()

    def awaited(self) -> Iterator[LandedStep]:
        """All steps that this rank can have by itself: waits for its devices, and for no other rank.

        What was taken has to be on its way already.
        """
        while self._steps:
            step = self._steps.popleft()
            step.wait()
            yield from self._landed(step)
        yield from self._added_up()

    def on_any_rank(self, here: bool) -> bool:
        """Whether something is so on any rank that has parts of the same parameters; waits for them."""
        return here if self._peers is None or self._lost else self._peers.on_any(here)

    def finish(self, normally: bool) -> Generator[LandedStep, None, None]:
        """What is left at the end; the last sum over ranks is formed where all of them end normally.

        Also where it is closed half-way no rank is left waiting, and no connection open.
        """
        together = False
        try:
            yield from self.awaited()
            if self._peers is not None and not self._lost:
                together = self._peers.leave(normally)
                if together:
                    self._add_up()
                    # Every rank has begun all of them: with the last one the others are done.
                    if self._sums:
                        self._sums[-1].reduction.wait(self._peers.PATIENCE)
                yield from self._added_up()
        finally:
            if self._peers is not None and not self._lost:
                self._part(together)

    def _landed(self, step: PendingStep) -> Iterator[LandedStep]:
        if self._peers is None:
            yield step.landed()
        elif self._lost:
            self.dropped += 1
        else:
            self._block.append(step.landed())
            if len(self._block) == self.BLOCK:
                self._add_up()

    def _add_up(self) -> None:
        assert self._peers is not None
        if self._sums and (len(self._sums) == self.MOST_UNDER_WAY or self._peers.has_lost_one()):
            self._lose()
        elif self._block:
            steps, self._block = self._block, []
            shares = np.concatenate([as_shares(step) for step in steps])
            self._sums.append(_Sum(self._peers.reduce(shares), steps))

    def _added_up(self) -> Iterator[LandedStep]:
        yield from self._leaving()
        while self._sums and self._sums[0].reduction.ready():
            total = self._sums[0].reduction.total()
            if total is None:
                self._lose()
            else:
                self._whole.extend(self._whole_steps(self._sums.popleft().steps, total))
                yield from self._leaving()

    def _leaving(self) -> Iterator[LandedStep]:
        """One by one, so that whoever ends the loop over them, as an interrupt does, leaves the rest in place."""
        while self._whole:
            yield self._whole.popleft()

    def _whole_steps(self, steps: Sequence[LandedStep], total: FloatArray) -> Iterator[LandedStep]:
        assert self._peers is not None
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
        assert self._peers is not None
        self._lost = True
        self._peers.leave(normally=False)
        self._give_up(together=False)
        log.warning(
            "gradwatch has no records of steps from now on, and none of the last %d: another rank has ended or "
            "has stopped tracking, and norms cannot be added up.",
            self.dropped,
        )

    def _part(self, together: bool) -> None:
        """The end: from ranks that have all of their sums, or else for good."""
        assert self._peers is not None
        if not together:
            self._peers.leave(normally=False)
        self._give_up(together)
        if self.dropped:
            log.warning("gradwatch has no record of %d steps: not all ranks gave their shares.", self.dropped)

    def _give_up(self, together: bool) -> None:
        """Drop what waits for other ranks, and the connections."""
        assert self._peers is not None
        self.dropped += len(self._block) + sum(len(under_way.steps) for under_way in self._sums)
        self._block = []
        self._sums.clear()
        self._peers.close(together)
