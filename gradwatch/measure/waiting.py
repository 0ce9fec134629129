"""Steps on their way to being records: first their numbers land from the devices, then the ranks add them up.

Steps leave in the order in which they were taken. In the training loop it is asked what has arrived and nothing
is waited for; only a reader waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from gradwatch.measure.meter import Meter
from gradwatch.measure.norms import FloatArray
from gradwatch.measure.rows import Row, record_of
from gradwatch.measure.steps import Step
from gradwatch.records import StepRecord

__all__ = ["Peers", "Reduction", "Waiting"]


class Reduction(Protocol):
    """A sum over ranks that is under way."""

    def ready(self) -> bool:
        """Whether it is done; asked, not waited for."""

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether it is done."""


class Peers(Protocol):
    """The ranks that hold the other shards of the same parameters."""

    def reduce(self, block: FloatArray) -> Reduction:
        """Begin to add up, in place, what every rank gives; returns at once."""

    def leave(self, normally: bool) -> bool:
        """Whether all ranks leave normally, so that a last sum will not be waited for in vain."""

    def close(self) -> None:
        """Let go of what was held; never waits for another rank."""


class Waiting:
    """Steps taken and not yet reported.

    Args:
        meter: where their numbers come from.
        peers: the ranks to add up with; None where every gradient is whole on this rank.

    Attributes:
        dropped: steps of which no whole norm could be had, since other ranks were gone.
    """

    # Every rank adds up after the same steps, whatever has arrived where by then.
    BLOCK = 16

    # A reader waits for a sum so long at most, in seconds: a rank that died never sends its share.
    PATIENCE = 30.0

    def __init__(self, meter: Meter, peers: Peers | None = None) -> None:
        self._meter = meter
        self._peers = peers
        self._steps: deque[Step] = deque()
        self._block: list[tuple[Step, Row]] = []
        self._adding: deque[tuple[Reduction, FloatArray, list[tuple[Step, Row]]]] = deque()
        self.dropped = 0

    def put(self, step: Step) -> None:
        """Take in the newest step."""
        self._steps.append(step)

    def arrived(self) -> Iterator[StepRecord]:
        """The records that are whole by now, oldest first."""
        while self._steps and self._steps[0].ready():
            yield from self._landed(self._steps.popleft())
        while self._adding and self._adding[0][0].ready():
            yield from self._added_up(*self._adding.popleft())

    def awaited(self) -> Iterator[StepRecord]:
        """All records that this rank can have by itself: waits for the devices and for sums under way."""
        self._meter.send()
        while self._steps:
            step = self._steps.popleft()
            step.wait()
            yield from self._landed(step)
        while self._adding:
            sum_, block, rows = self._adding.popleft()
            if sum_.wait(self.PATIENCE):
                yield from self._added_up(sum_, block, rows)
            else:
                self.dropped += len(rows)

    def finish(self, normally: bool) -> Iterator[StepRecord]:
        """What is left at the end; the last sum over ranks is formed where all of them end normally."""
        yield from self.awaited()
        if self._peers is None:
            return
        if self._peers.leave(normally) and self._block:
            self._add_up()
            yield from self.awaited()
        self.dropped += len(self._block)
        self._block = []
        self._peers.close()

    def _landed(self, step: Step) -> Iterator[StepRecord]:
        row = step.row()
        if self._peers is None:
            yield record_of(step.optimizer, step.number, step.holding, row)
            return
        self._block.append((step, row))
        if len(self._block) == self.BLOCK:
            self._add_up()

    def _add_up(self) -> None:
        assert self._peers is not None
        rows, self._block = self._block, []
        block = np.concatenate([_shares(step, row) for step, row in rows])
        self._adding.append((self._peers.reduce(block), block, rows))

    def _added_up(self, _: Reduction, block: FloatArray, rows: Sequence[tuple[Step, Row]]) -> Iterator[StepRecord]:
        start = 0
        for step, row in rows:
            size = 3 * len(step.holding.sharded)
            _take_sums(step, row, block[start : start + size])
            start += size
            yield record_of(step.optimizer, step.number, step.holding, row)


# A gradient may be on some ranks only: how many have it is counted along, after clipping in steps of 2^16.
_COUNT = float(1 << 16)


def _shares(step: Step, row: Row) -> FloatArray:
    """This rank's part of each sharded sum of squares, before and after, and whether it has a gradient at all."""
    places, weight = step.holding.sharded, step.holding.shares
    had, has = row.had_before[places], row.has_after[places]
    with np.errstate(all="ignore"):
        before = np.where(had, np.square(row.before[places]) * weight, 0.0)
        after = np.where(has, np.square(row.after[places]) * weight, 0.0)
    return np.concatenate([before, after, had + _COUNT * has])


def _take_sums(step: Step, row: Row, sums: FloatArray) -> None:
    places = step.holding.sharded
    before, after, count = np.split(sums, 3)
    row.before[places], row.after[places] = np.sqrt(before), np.sqrt(after)
    row.had_before[places], row.has_after[places] = count % _COUNT > 0, count >= _COUNT
