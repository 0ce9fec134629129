"""Steps on their way out: in blocks, each once, oldest first, whoever asks for them."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import islice
from operator import attrgetter
from threading import get_ident
from typing import TypeVar

from gradwatch.blocks import Steps
from gradwatch.measure.pending import LandedStep, PendingStep, block_of
from gradwatch.measure.queue import StepQueue
from gradwatch.measure.sharding.ranks import Peers

__all__ = ["Reporting"]

T = TypeVar("T")


class Reporting:
    """Reports steps in blocks once their numbers are there.

    A block ends after ``BLOCK`` steps of an optimizer, after ``SECONDS``, at once where a step is urgent, and when
    somebody reads. A training loop never waits for somebody who reads: what it cannot report itself, because
    another thread is at it, that thread reports.

    Args:
        report: takes the steps of a block, in the training thread or in that of whoever reads.
        send: starts the copy to the host of all that devices have.
    """

    BLOCK = 16
    SECONDS = 0.1

    # Steps in one block at most, however many have gathered: of a device, or at the end.
    MOST = 64

    def __init__(self, report: Callable[[Steps], object], send: Callable[[], object]) -> None:
        self._report = report
        self._send = send
        self._queue = StepQueue()
        self.compare: Callable[[Sequence[LandedStep]], object] | None = None
        self._active = False
        self._since = 0.0
        # By optimizer, the steps since none waited.
        self._taken: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._owner = self._interrupted = 0
        self._wanted = False
        self._tasks: deque[Callable[[], object]] = deque()

    @property
    def dropped_steps(self) -> int:
        """Steps without a record: other ranks did not give their share, or an interrupt came while it was told."""
        return self._queue.dropped + self._interrupted

    def start(self, peers: Peers | None) -> None:
        """Begin, with the ranks to add up with."""
        self._queue = StepQueue(peers)
        self._active = True

    def take(self, step: PendingStep, urgent: bool) -> None:
        """Take in the newest step, and report the block where it ends; waits for nothing."""
        queue = self._queue
        waiting = queue.put(step)
        if waiting == 1:
            self._since = step.row.time
            self._taken.clear()
        whose = step.own.layout.optimizer
        self._taken[whose] += 1
        full = self._taken[whose] % self.BLOCK == 0
        if full:
            # The oldest may wait for a ring that its device, seldom used, fills far more slowly than others do.
            self._send()
        late = step.row.time - self._since >= self.SECONDS
        on_device = step.awaited is not None and step.awaited.norms is not None
        if urgent or full or late or (on_device and queue.has_arrived):
            self.hand_on()

    def soon(self, task: Callable[[], object]) -> None:
        """Do this between two blocks, at once where nobody is at it."""
        self._tasks.append(task)
        self.hand_on()

    def if_free(self, task: Callable[[], object]) -> None:
        """Do this between two blocks, unless another thread is at it."""
        if self._lock.acquire(blocking=False):
            try:
                self._tasks.append(task)
                self._hand_on(tuple)
            finally:
                self._lock.release()
            self._again()

    def hand_on(self) -> None:
        """Report what has arrived; where another thread is at it, that one does."""
        self._wanted = True
        self._again()

    def catch_up(self) -> None:
        """Report all that was measured so far; waits for the devices, and for another thread that is at it."""
        self.read(lambda: None)

    def read(self, what: Callable[[], T]) -> T:
        """What there is to be read when all that was measured so far is reported: read while nobody judges."""
        if self._owner == get_ident():
            # What a rule reads within its own look is what has been reported before.
            return what()
        if self._active:
            self._send()
        with self._lock:
            if self._active:
                self._hand_on(self._queue.awaited)
            result = what()
        self._again()
        return result

    def on_any_rank(self, here: bool) -> bool:
        """Whether something is so on any rank that has parts of the same parameters; waits for them."""
        return self._queue.on_any_rank(here)

    def finish(self, normally: bool) -> None:
        """Report what is left, a second time nothing.

        Args:
            normally: the loop ended by itself: other ranks may be waited for.
        """
        if not self._active:
            return
        self._active = False
        self._send()
        with closing(self._queue.finish(normally)) as ending:
            if self._owner == get_ident():
                self._in_blocks(ending)
            else:
                with self._lock:
                    self._hand_on(lambda: ending)

    def _again(self) -> None:
        """What came while the lock was held by somebody who had looked already."""
        while self._wanted and self._lock.acquire(blocking=False):
            try:
                self._wanted = False
                self._hand_on(self._queue.arrived)
            finally:
                self._lock.release()

    def _hand_on(self, steps: Callable[[], Iterable[LandedStep]]) -> None:
        """Under the lock, of which callers let go: an interrupt may come before the first line of this."""
        self._owner = get_ident()
        try:
            self._in_blocks(steps())
            while self._tasks:
                self._tasks.popleft()()
        finally:
            self._owner = 0

    def _in_blocks(self, steps: Iterable[LandedStep]) -> None:
        arriving = iter(steps)
        while some := list(islice(arriving, self.MOST)):
            told = False
            try:
                if self.compare is not None:
                    self.compare(some)
                self._report(_in_order(some))
                told = True
            finally:
                # An interrupt may come before every line; how far it got then is not known.
                if not told:
                    self._interrupted += len(some)


def _in_order(landed: Sequence[LandedStep]) -> Steps:
    """A block for each optimizer and list of parameters, and the steps of all of them in the order of time."""
    if len(set(map(id, map(attrgetter("own"), landed)))) == 1:
        return Steps.of(block_of(landed))
    groups: dict[int, list[LandedStep]] = {}
    places = []
    for step in landed:
        group = groups.setdefault(id(step.own), [])
        places.append((id(step.own), len(group)))
        group.append(step)
    blocks = {one: block_of(group) for one, group in groups.items()}
    return Steps((blocks[one], place) for one, place in places)
