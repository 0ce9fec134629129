"""Steps on their way out: each once, oldest first, in blocks that end in time, whoever reads or does not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch

from gradwatch import reporting
from gradwatch.blocks import Facts, StepRow, Steps
from gradwatch.measure.lines import Lines
from gradwatch.measure.parameters import OptimizerParameters
from gradwatch.measure.pending import Awaited, LandedStep
from gradwatch.measure.sharding.shards import Shards
from gradwatch.reporting import Reporting


def holding(name: str = "optimizer", parameters: int = 1) -> OptimizerParameters:
    held = [torch.nn.Parameter(torch.zeros(1)) for _ in range(parameters)]
    return OptimizerParameters(name, torch.optim.SGD(held, lr=0.1), Lines(None), Shards())


OWN = holding()

# Its norms, and a loss scale beside norms on the host, as a GradScaler of the CPU has it.
ON_DEVICE: Any = Awaited(cast("Any", object()), (), None, None, None)
SCALED = Awaited(None, (), 2.0**16, None, None)


@dataclass
class Step:
    """A step that has landed, or that is on a device still."""

    number: int
    time: float = 0.0
    own: OptimizerParameters = OWN
    awaited: Awaited | None = None

    @property
    def row(self) -> StepRow:
        return StepRow(self.number, self.time, Facts.usual(len(self.own)))

    def landed(self) -> LandedStep:
        norms = np.full(len(self.own), float(self.number)).tobytes()
        return LandedStep(self.own, self.row, norms, norms)


class Queue:
    """Steps that are there once all up to ``there`` of them have arrived."""

    dropped = 0

    def __init__(self, *_: object) -> None:
        self.steps: deque[Step] = deque()
        self.there = 10**6

    @property
    def has_arrived(self) -> bool:
        return bool(self.steps) and self.steps[0].number <= self.there

    def put(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps)

    def arrived(self) -> Iterator[LandedStep]:
        while self.has_arrived:
            yield self.steps.popleft().landed()

    def awaited(self) -> Iterator[LandedStep]:
        while self.steps:
            yield self.steps.popleft().landed()

    def finish(self, normally: bool) -> Iterator[LandedStep]:
        yield from self.awaited()


@dataclass
class Told:
    """A reporting, what it has reported, and what is done at each report."""

    blocks: list[list[int]] = field(default_factory=list)
    then: list[Callable[[list[int]], object]] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.made = Reporting(self._report, self._send)
        self.made.start(None)

    def _send(self) -> None:
        self.sent += 1

    def _report(self, steps: Steps) -> None:
        self.blocks.append([step.step for step in steps])
        for do in self.then:
            do(self.blocks[-1])

    @property
    def queue(self) -> Any:
        return self.made._queue

    @property
    def steps(self) -> list[int]:
        return [step for block in self.blocks for step in block]

    def take(self, *numbers: int, time: float = 0.0, urgent: bool = False, **other: Any) -> None:
        for number in numbers:
            self.made.take(Step(number, time, **other), urgent)  # type: ignore[arg-type]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(reporting, "StepQueue", Queue)
    return Told()


BLOCK = Reporting.BLOCK


def test_a_block_ends_when_it_is_full(told: Told) -> None:
    told.take(*range(1, BLOCK))
    assert told.blocks == []
    told.take(BLOCK, BLOCK + 1)
    assert told.blocks == [list(range(1, BLOCK + 1))]


def test_a_block_ends_when_one_of_the_optimizers_has_filled_it(told: Told) -> None:
    """One that steps less often is told of with it, and they begin anew together."""
    often, seldom = holding("critic"), holding("actor")
    numbers = iter(range(10 * BLOCK))
    for _ in range(3):
        for _ in range(BLOCK // 2 - 1):
            told.take(next(numbers), next(numbers), own=often)
            told.take(next(numbers), own=seldom)
        told.take(next(numbers), own=often)
        before = len(told.blocks)
        told.take(next(numbers), own=often)
        assert len(told.blocks) == before + 1
    assert [len(block) for block in told.blocks] == [BLOCK + BLOCK // 2 - 1] * 3


def test_a_block_ends_in_time_though_the_list_of_parameters_changes(told: Told) -> None:
    """As where some layers are trained at a time."""
    for number in range(1, 2 * BLOCK + 1):
        told.take(number, own=holding(parameters=1 + number // 10))
    assert [len(block) for block in told.blocks] == [BLOCK, BLOCK]


def test_a_block_ends_after_its_time_at_the_next_step(told: Told) -> None:
    told.take(1, time=10.0)
    told.take(2, time=10.0 + 0.9 * Reporting.SECONDS)
    assert told.blocks == []
    told.take(3, time=10.0 + 1.1 * Reporting.SECONDS)
    assert told.blocks == [[1, 2, 3]]
    # The clock begins with the first step of a block.
    told.take(4, time=11.0)
    assert told.blocks == [[1, 2, 3]]


def test_an_urgent_step_ends_its_block_at_once(told: Told) -> None:
    told.take(1)
    told.take(2, urgent=True)
    assert told.blocks == [[1, 2]]


def test_steps_of_a_device_are_reported_as_they_arrive_and_sent_when_there_are_many(told: Told) -> None:
    told.queue.there = 0
    told.take(*range(1, BLOCK), awaited=ON_DEVICE)
    assert (told.blocks, told.sent) == ([], 0)
    told.take(BLOCK, awaited=ON_DEVICE)
    assert (told.blocks, told.sent) == ([], 1)
    told.queue.there = BLOCK - 1
    told.take(BLOCK + 1, awaited=ON_DEVICE)
    assert told.blocks == [list(range(1, BLOCK))]


def test_a_step_that_waits_for_no_device_waits_for_its_block(told: Told) -> None:
    told.take(*range(1, BLOCK), awaited=SCALED)
    assert told.blocks == []
    told.take(BLOCK, awaited=SCALED)
    assert told.blocks == [list(range(1, BLOCK + 1))]


def test_a_step_of_a_device_that_many_wait_behind_is_sent_for(told: Told) -> None:
    told.queue.there = 0
    told.take(1, awaited=ON_DEVICE)
    told.take(*range(2, BLOCK + 1))
    assert told.sent == 1


def test_a_reader_gets_all_up_to_the_last_step(told: Told) -> None:
    told.queue.there = 0
    told.take(1, 2, 3)
    told.made.catch_up()
    assert (told.blocks, told.sent) == ([[1, 2, 3]], 1)


def test_what_is_read_is_read_behind_the_last_step_and_while_nobody_reports(told: Told) -> None:
    """A training loop that steps meanwhile goes on, and what it has taken is reported behind it."""
    told.queue.there = 0
    told.take(1)

    def read() -> tuple[list[int], list[int]]:
        before = list(told.steps)
        loop = threading.Thread(target=lambda: told.take(2, urgent=True))
        told.queue.there = 2
        loop.start()
        loop.join(60)
        assert not loop.is_alive()
        return before, list(told.steps)

    assert told.made.read(read) == ([1], [1])
    assert told.steps == [1, 2]


def test_many_steps_at_once_come_in_blocks_of_a_bounded_size(told: Told) -> None:
    told.queue.there = 0
    told.take(*range(1, 2 * Reporting.MOST + 10))
    told.made.catch_up()
    assert [len(block) for block in told.blocks] == [Reporting.MOST, Reporting.MOST, 9]
    assert told.steps == list(range(1, 2 * Reporting.MOST + 10))


def test_steps_of_several_optimizers_and_lists_of_parameters_keep_their_order(told: Told) -> None:
    owns = [holding("actor"), holding("critic", 2), holding("actor", 3)]
    seen: list[Any] = []
    told.made._report = lambda steps: seen.extend((s.optimizer, s.step, len(s.parameters)) for s in steps)
    for number, own in enumerate([0, 1, 0, 2, 1, 2]):
        told.take(number, own=owns[own])
    told.made.catch_up()
    names = ["actor", "critic", "actor", "actor", "critic", "actor"]
    assert seen == list(zip(names, range(6), [1, 2, 1, 3, 2, 3], strict=True))


def test_a_callback_that_reads_finds_what_was_reported_before(told: Told) -> None:
    seen: list[list[int]] = []

    def read(_: object) -> None:
        told.take(*range(len(told.steps) + 1, 3))
        told.made.catch_up()
        seen.append(told.steps)

    told.then.append(read)
    told.take(1, urgent=True)
    assert seen == [[1]]
    assert told.steps == [1]
    told.made.catch_up()
    assert told.steps == [1, 2]


def test_a_callback_that_ends_the_tracking_gets_all_that_is_left_reported(told: Told) -> None:
    at_the_end: list[list[int]] = []

    def close(block: list[int]) -> None:
        if 2 in block:
            told.take(4, 5)
            told.made.finish(normally=True)
            at_the_end.append(told.steps)

    told.then.append(close)
    told.take(1, 2, 3)
    told.made.catch_up()
    assert at_the_end == [[1, 2, 3, 4, 5]]
    told.made.finish(normally=True)
    told.made.catch_up()
    assert told.steps == [1, 2, 3, 4, 5]


def test_a_report_that_raises_loses_no_later_step(told: Told) -> None:
    def fail(block: list[int]) -> None:
        if 2 in block:
            raise ValueError("a sink")

    told.then.append(fail)
    told.take(1)
    with pytest.raises(ValueError, match="a sink"):
        told.take(2, urgent=True)
    told.take(3)
    told.made.finish(normally=False)
    assert told.steps == [1, 2, 3]


def test_what_comes_while_another_thread_reports_is_reported_by_that_one(told: Told) -> None:
    reporting_now, go_on = threading.Event(), threading.Event()
    threads: list[int] = []

    def hold(_: object) -> None:
        threads.append(threading.get_ident())
        reporting_now.set()
        go_on.wait(20)

    told.then.append(hold)
    told.take(1)
    reader = threading.Thread(target=told.made.catch_up)
    reader.start()
    assert reporting_now.wait(20)
    # The training goes on, and waits for nothing.
    told.take(2, urgent=True)
    done: list[str] = []
    told.made.soon(lambda: done.append("soon"))
    told.made.if_free(lambda: done.append("if free"))
    assert (told.steps, done) == ([1], [])
    go_on.set()
    reader.join()
    assert (told.steps, done) == ([1, 2], ["soon"])
    assert set(threads) == {reader.ident}


def test_what_is_to_be_done_between_two_blocks_is_done_at_once_where_nobody_is_at_it(told: Told) -> None:
    done: list[list[int]] = []
    told.take(1)
    told.made.if_free(lambda: done.append(told.steps))
    told.made.soon(lambda: done.append(told.steps))
    assert done == [[], [1]]


def test_before_it_has_begun_nothing_is_waited_for() -> None:
    made = Reporting(lambda _: pytest.fail("nothing was taken"), lambda: pytest.fail("nothing is to be sent"))
    made.catch_up()
    made.finish(normally=True)
    assert made.dropped_steps == 0


@pytest.mark.parametrize(
    "reports",
    [
        Reporting.catch_up,
        Reporting.hand_on,
        lambda reporting: reporting.if_free(lambda: None),
        lambda reporting: reporting.finish(normally=True),
    ],
)
def test_an_interrupt_on_the_doorstep_leaves_the_door_open(
    reports: Callable[[Reporting], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may arrive as a function is entered, before its first line: whoever reads later must not wait for ever."""
    interrupted = Reporting(lambda _: None, lambda: None)
    interrupted.start(None)

    def entered(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Reporting, "_hand_on", entered)
    with pytest.raises(KeyboardInterrupt):
        reports(interrupted)
    assert not interrupted._lock.locked()
