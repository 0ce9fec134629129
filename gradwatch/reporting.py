"""Records on their way out: each once, oldest first, whoever asks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import NamedTuple

from gradwatch.measure.following import Followed
from gradwatch.measure.meter import Meter
from gradwatch.measure.ranks import Peers
from gradwatch.measure.shards import Shards
from gradwatch.measure.shares import size_for
from gradwatch.measure.steps import Step
from gradwatch.measure.waiting import Waiting
from gradwatch.records import StepRecord

__all__ = ["Reporting", "Told", "peers_for"]


class Told(NamedTuple):
    """What an observer tells, in the training thread or in that of whoever reads.

    Attributes:
        report: takes each record, oldest first.
        stepping: takes the name of an optimizer that is about to step.
        stepped: takes it when the step is done, and its record, where it was there at once, is reported.
    """

    report: Callable[[StepRecord], object]
    stepping: Callable[[str], object]
    stepped: Callable[[str], object]


class Reporting:
    """Reports the record of each step once its numbers are there.

    Args:
        meter: where the numbers of steps come from.
        report: takes each record, in the training thread or in that of whoever reads.

    Attributes:
        lock: held while something is reported. Optimizers may be stepped from several threads; it is re-entrant
            for alerts' callbacks.
    """

    def __init__(self, meter: Meter, report: Callable[[StepRecord], object]) -> None:
        self.lock = threading.RLock()
        self._meter = meter
        self._report = report
        self._waiting = Waiting(meter)
        self._active = False
        # What is being reported now, where it is.
        self._under_way: Iterator[StepRecord] | None = None

    @property
    def dropped_steps(self) -> int:
        """Steps without a record, since other ranks did not give their share."""
        return self._waiting.dropped

    def start(self, peers: Peers | None) -> None:
        """Begin, with the ranks to add up with."""
        self._waiting = Waiting(self._meter, peers)
        self._active = True

    def take(self, step: Step | None) -> None:
        """Take in the newest step, and report what is there by now; waits for nothing. None was not measured."""
        if step is not None:
            with self.lock:
                self._waiting.put(step)
                self._hand_on(self._waiting.arrived())

    @contextmanager
    def caught_up(self) -> Iterator[None]:
        """All that was measured so far is reported, and nothing more while this lasts; waits for the devices."""
        with self.lock:
            if self._active:
                self._hand_on(self._waiting.awaited())
            yield

    def on_any_rank(self, here: bool) -> bool:
        """Whether something is so on any rank that has parts of the same parameters; waits for them."""
        return self._waiting.on_any_rank(here)

    def finish(self, normally: bool) -> None:
        """Report what is left, a second time nothing.

        Args:
            normally: the loop ended by itself: other ranks may be waited for.
        """
        with self.lock:
            if self._active:
                self._active = False
                # An alert's callback may end the tracking in the middle of what is being reported.
                rest, self._under_way = self._under_way or iter(()), None
                with closing(self._waiting.finish(normally)) as ending:
                    try:
                        self._hand_on(rest)
                    finally:
                        self._hand_on(ending)

    def _hand_on(self, records: Iterator[StepRecord]) -> None:
        # An alert's callback may read the watch, which catches up: it must not overtake what is reported now.
        if self._under_way is not None:
            return
        self._under_way = records
        try:
            for record in records:
                self._report(record)
        finally:
            self._under_way = None


def peers_for(shards: Shards, followed: Mapping[str, Followed], terms: str, questions: bool) -> Peers | None:
    """Meet the ranks that have the other parts of the parameters; waits for them.

    Args:
        shards: which ranks these are.
        followed: the optimizers, by name.
        terms: what has to be the same on all of them besides.
        questions: they will be asked for something at each step.

    Returns:
        None where there are none, where they do not track, and where every norm is whole on each rank.
    """
    if len(shards.ranks) == 1:
        return None
    sizes = [size_for(len(one.holding.sharded)) for one in followed.values()]
    names = [f"{name} {size}" for name, size in zip(followed, sizes, strict=True)]
    terms = f"{names} {shards.signature} {terms}"
    peers = Peers.meet(shards.ranks, terms, Waiting.BLOCK * max(sizes), questions=questions)
    shards.agreed = peers is not None
    if peers is not None and not shards.divided:
        # Partial gradients may have to be added up, but nothing of a row.
        peers.close(together=True)
        return None
    return peers
