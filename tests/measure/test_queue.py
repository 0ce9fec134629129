"""Steps on their way to being records, with a device and ranks that are played here."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from gradwatch.blocks import Facts, FloatArray, StepRow
from gradwatch.measure.parameters import RowForm
from gradwatch.measure.pending import LandedStep
from gradwatch.measure.queue import StepQueue
from gradwatch.measure.sharding.rank_sums import RankSums
from tests.blocks import layout_of

BLOCK, MOST = StepQueue.BLOCK, RankSums.MOST_UNDER_WAY
OWN = RowForm(layout_of(("w",)), np.array([0]), np.ones(1))


class Step:
    """Its numbers are on a device until it is ready, or somebody waits."""

    before = bytes(8)

    def __init__(self, number: int, ready: bool = True) -> None:
        self.number = number
        self.is_ready = ready
        self.waited = False

    def ready(self) -> bool:
        return self.is_ready

    def wait(self) -> None:
        self.is_ready = self.waited = True

    def landed(self) -> LandedStep:
        assert self.is_ready
        row = StepRow(self.number, float(self.number), Facts.usual(1))
        return LandedStep(OWN, row, np.full(1, 3.0).tobytes(), np.full(1, 4.0).tobytes())


class Sum:
    """Sums are done in the order in which they were begun."""

    def __init__(self, total: FloatArray | None, ready: bool, begun: list[Sum]) -> None:
        self._total = total
        self.is_ready = ready
        self._begun = begun

    def ready(self) -> bool:
        return self.is_ready

    def wait(self, _: float) -> bool:
        for one in self._begun[: self._begun.index(self) + 1]:
            one.is_ready = True
        return True

    def total(self) -> FloatArray | None:
        return self._total


class Twin:
    """The connection to one other rank, whose numbers are this one's own."""

    PATIENCE = 1.0
    members = 2

    def __init__(self, at_once: bool = True, together: bool = True) -> None:
        self.at_once = at_once
        self.together = together
        self.breaks = self.is_lost = False
        self.ahead = 0
        self.sums: list[Sum] = []
        self.left: list[bool] = []
        self.closed: list[bool] = []

    def reduce(self, shares: FloatArray) -> Sum:
        theirs = shares.copy()
        theirs[0] += self.ahead  # the mark of another step
        self.sums.append(Sum(None if self.breaks else shares + theirs, self.at_once, self.sums))
        return self.sums[-1]

    def has_lost_one(self) -> bool:
        return self.is_lost

    def on_any(self, here: bool) -> bool:
        return not here

    def leave(self, normally: bool) -> bool:
        self.left.append(normally)
        return normally and self.together

    def close(self, together: bool) -> None:
        self.closed.append(together)


def numbers(steps: Iterable[LandedStep]) -> list[int]:
    return [step.row.step for step in steps]


def filled(peers: Any, steps: int) -> StepQueue:
    queue = StepQueue(peers)
    for number in range(1, steps + 1):
        queue.put(Step(number))  # type: ignore[arg-type]
    return queue


def test_steps_leave_in_their_order_and_none_is_waited_for() -> None:
    queue, steps = StepQueue(), [Step(1), Step(2, ready=False), Step(3)]
    for step in steps:
        queue.put(step)  # type: ignore[arg-type]
    assert queue.has_arrived
    assert numbers(queue.arrived()) == [1]
    assert not queue.has_arrived
    assert numbers(queue.arrived()) == []
    assert not any(step.waited for step in steps)
    steps[1].is_ready = True
    assert numbers(queue.arrived()) == [2, 3]
    assert queue.put(Step(4)) == 1  # type: ignore[arg-type]


def test_a_reader_waits_for_the_device() -> None:
    queue, late = StepQueue(), Step(1, ready=False)
    queue.put(late)  # type: ignore[arg-type]
    assert numbers(queue.awaited()) == [1]
    assert late.waited


def test_what_an_interrupted_reader_did_not_take_stays() -> None:
    queue = filled(None, 3)
    reading = queue.awaited()
    assert next(reading).row.step == 1
    reading.close()
    assert numbers(queue.awaited()) == [2, 3]


class Wide(Step):
    before = bytes(8 * 1000)


def test_what_waits_for_a_reader_that_does_not_come_to_an_end_is_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = 100
    monkeypatch.setattr(StepQueue, "BYTES", room * (2 * len(Wide.before) + StepQueue.A_STEP))
    queue = StepQueue()
    waiting = [queue.put(Wide(number, ready=False)) for number in range(1, 301)]  # type: ignore[arg-type]
    held = max(waiting)
    assert room <= held <= room + 1
    assert waiting[held:] == [held] * (300 - held)
    assert queue.dropped == 300 - held
    assert numbers(queue.awaited()) == list(range(1, held + 1))
    # There is room again.
    assert queue.put(Wide(301)) == 1  # type: ignore[arg-type]
    assert queue.dropped == 300 - held


def test_where_ranks_add_up_no_step_is_left_out_on_one_of_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepQueue, "BYTES", 0)
    assert filled(Twin(), 3).dropped == 0


def test_ranks_add_up_full_blocks() -> None:
    queue = filled(Twin(), BLOCK + 1)
    whole = list(queue.awaited())
    assert numbers(whole) == list(range(1, BLOCK + 1))
    assert np.frombuffer(whole[0].before).tolist() == pytest.approx([3.0 * math.sqrt(2)])
    assert np.frombuffer(whole[0].after).tolist() == pytest.approx([4.0 * math.sqrt(2)])


def test_nobody_waits_for_another_rank_until_the_end() -> None:
    peers = Twin(at_once=False)
    queue = filled(peers, BLOCK + 3)
    assert numbers(queue.awaited()) == []
    assert numbers(queue.finish(normally=True)) == list(range(1, BLOCK + 4))
    assert (peers.left, peers.closed, queue.dropped) == ([True], [True], 0)


def test_where_another_rank_ends_otherwise_the_rest_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    peers = Twin(together=False)
    queue = filled(peers, BLOCK + 3)
    with caplog.at_level(logging.WARNING, "gradwatch"):
        assert numbers(queue.finish(normally=True)) == list(range(1, BLOCK + 1))
    assert (peers.left, peers.closed, queue.dropped) == ([True, False], [False], 3)
    assert "no record of 3 steps" in caplog.text


def test_an_end_that_is_cut_short_leaves_no_rank_waiting() -> None:
    peers = Twin()
    ending = filled(peers, BLOCK).finish(normally=True)
    next(ending)
    ending.close()
    assert (peers.left, peers.closed) == ([False], [False])


def test_a_sum_that_fails_is_the_last(caplog: pytest.LogCaptureFixture) -> None:
    peers = Twin()
    peers.breaks = True
    queue = filled(peers, BLOCK + 3)
    with caplog.at_level(logging.WARNING, "gradwatch"):
        assert numbers(queue.awaited()) == []
    assert (peers.left, peers.closed, queue.dropped) == ([False], [False], BLOCK + 3)
    assert "another rank has ended" in caplog.text
    queue.put(Step(99))  # type: ignore[arg-type]
    assert numbers(queue.arrived()) == []
    assert queue.dropped == BLOCK + 4
    assert numbers(queue.finish(normally=True)) == []
    assert peers.left == [False]  # once


@pytest.mark.parametrize(("lost", "blocks"), [(False, MOST + 1), (True, 2)])
def test_a_rank_that_is_gone_or_far_behind_is_given_up(lost: bool, blocks: int) -> None:
    peers = Twin(at_once=False)
    peers.is_lost = lost
    queue = filled(peers, BLOCK * (blocks - 1))
    assert numbers(queue.arrived()) == []
    assert queue.dropped == 0
    for number in range(BLOCK):
        queue.put(Step(number))  # type: ignore[arg-type]
    assert numbers(queue.arrived()) == []
    assert (peers.closed, queue.dropped) == ([False], BLOCK * blocks)


def test_a_sum_of_different_steps_is_no_norm() -> None:
    peers = Twin()
    peers.ahead = 1
    queue = filled(peers, BLOCK)
    taken = numbers(queue.awaited())
    assert taken == list(range(2, BLOCK + 1))  # the first carries the mark
    assert queue.dropped == 1


def test_ranks_are_asked_as_long_as_there_are_any() -> None:
    assert not StepQueue().on_any_rank(False)
    peers: Any = Twin()
    queue = filled(peers, 0)
    assert queue.on_any_rank(False)
    peers.breaks = True
    for number in range(BLOCK):
        queue.put(Step(number))  # type: ignore[arg-type]
    list(queue.arrived())
    assert not queue.on_any_rank(False)
