"""Steps on their way to being records: their numbers land from the devices, then the ranks add them up, if any.

Steps leave in the order in which they were taken. In the training loop it is asked what has arrived and nothing
is waited for. A reader waits for the devices of this rank, but for no other rank: one that waits for this one in
the training would never come. Only at the end are the last sums waited for, once all ranks have said that they
are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

from gradwatch.measure.pending import LandedStep, PendingStep
from gradwatch.measure.sharding.rank_sums import RankSums
from gradwatch.measure.sharding.ranks import Peers

__all__ = ["StepQueue"]


class StepQueue:
    """Steps taken and not yet reported.

    Args:
        peers: the ranks to add up with; None where every gradient is whole on this rank.
    """

    # Every rank adds up after the same steps, whatever has arrived where by then.
    BLOCK = 16

    # What may wait. Where ranks add up, none may be left out on one of them alone.
    BYTES = 64 << 20
    # What a step takes up besides its norms.
    A_STEP = 1000

    def __init__(self, peers: Peers | None = None) -> None:
        self._ranks: RankSums[LandedStep] | None = None if peers is None else RankSums(peers, self.BLOCK)
        self._steps: deque[PendingStep] = deque()
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Steps that came while too many waited for a reader that hangs; and those that no rank added up."""
        return self._dropped if self._ranks is None else self._ranks.dropped

    def put(self, step: PendingStep) -> int:
        """Take in the newest step, if it fits; how many there are now."""
        waiting = len(self._steps)
        if waiting * (self.A_STEP + 2 * len(step.before)) > self.BYTES and self._ranks is None:
            self._dropped += 1
            return waiting
        self._steps.append(step)
        return waiting + 1

    @property
    def has_arrived(self) -> bool:
        """Whether the oldest step is there; asked, not waited for."""
        return bool(self._steps) and self._steps[0].ready()

    def arrived(self) -> Iterator[LandedStep]:
        """The steps that are whole by now, oldest first."""
        return self._whole(wait=False)

    def awaited(self) -> Iterator[LandedStep]:
        """All steps that this rank can have by itself: waits for its devices, and for no other rank.

        What was taken has to be on its way already.
        """
        return self._whole(wait=True)

    def on_any_rank(self, here: bool) -> bool:
        """Whether something is so on any rank that has parts of the same parameters; waits for them."""
        return here if self._ranks is None else self._ranks.on_any(here)

    def finish(self, normally: bool) -> Generator[LandedStep, None, None]:
        """What is left at the end; the last sum over ranks is formed where all of them end normally.

        Also where it is closed half-way no rank is left waiting, and no connection open.
        """
        try:
            yield from self.awaited()
            if self._ranks is not None:
                yield from self._ranks.last(normally)
        finally:
            if self._ranks is not None:
                self._ranks.part()

    def _whole(self, wait: bool) -> Iterator[LandedStep]:
        steps, ranks = self._steps, self._ranks
        while steps and (wait or steps[0].ready()):
            step = steps.popleft()
            if wait:
                step.wait()
            if ranks is None:
                yield step.landed()
            else:
                ranks.put(step.landed())
        if ranks is not None:
            yield from ranks.whole()
