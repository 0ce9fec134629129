import logging
import os
import threading
import warnings

import numpy as np
import pytest

from gradwatch.blocks import Block, Facts, Layout, StepRow, Steps
from gradwatch.errors import SinkError
from gradwatch.records import Health
from gradwatch.sinks import Memory
from gradwatch.sinks.fanout import Fanout
from tests.made_up import alert, record, run_info
from tests.sinks.marks import all_written


class Broken:
    def write(self, records, alerts):
        raise ValueError("disk on fire")

    def close(self):
        raise ValueError("still on fire")


class Exits:
    def write(self, records, alerts):
        raise SystemExit(1)

    def close(self):
        raise SystemExit(1)


class Slow(Memory):
    def __init__(self):
        super().__init__()
        self.entered = threading.Event()
        self.may_go_on = threading.Event()

    def write(self, records, alerts):
        self.entered.set()
        self.may_go_on.wait(10)
        super().write(records, alerts)


class Unopenable(Memory):
    def open(self, run, health):
        raise SinkError("the port is in use")


class Opened(Memory):
    closed = 0

    def close(self):
        self.closed += 1


class Arriving(Opened):
    """Tells what has arrived, and that it is closed."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()
        self.is_closed = threading.Event()

    def write(self, records, alerts):
        with self.changed:
            super().write(records, alerts)
            self.changed.notify_all()

    def has_all(self, number):
        with self.changed:
            return self.changed.wait_for(lambda: len(self.records) == number, 10)

    def close(self):
        super().close()
        self.is_closed.set()


class Greedy(Memory):
    """Changes what it is given."""

    def write(self, records, alerts):
        records.clear()


class Curious(Memory):
    """Reads the newest record alone."""

    def write(self, records, alerts):
        self.records.append(records[-1])


def block(length=3):
    layout = Layout("actor", ("w",), {"mlp": np.arange(1)}, {}, np.zeros(1))
    rows = [StepRow(step, float(step), Facts.usual(1)) for step in range(1, length + 1)]
    return Block(layout, rows, np.ones((length, 1)), np.ones((length, 1)))


def opened(*sinks, **options):
    fanout = Fanout(sinks, **options)
    fanout.open(run_info(), Health)
    return fanout


def thread_of(fanout, place):
    return fanout._outlets[place].thread


def test_everything_arrives_in_order_and_once():
    memory = Memory()
    fanout = opened(memory)
    for step in range(1, 501):
        fanout.put([record(step)], [alert(step=step)] if step % 100 == 0 else [])
    fanout.close()
    assert [r.step for r in memory.records] == list(range(1, 501))
    assert [a.step for a in memory.alerts] == [100, 200, 300, 400, 500]


def test_flush_waits_for_what_was_put_before():
    memory = Memory()
    fanout = opened(memory)
    fanout.put([record()], [])
    fanout.flush()
    assert len(memory.records) == 1
    fanout.close()


def test_a_sink_that_flushes_or_closes_within_its_own_write_waits_for_nothing():
    class Impatient(Memory):
        def write(self, records, alerts):
            fanout.flush()
            super().write(records, alerts)
            fanout.close()

    sink = Impatient()
    fanout = opened(sink)
    fanout.put([record()], [])
    thread = thread_of(fanout, 0)
    thread.join(10)
    assert not thread.is_alive()
    assert len(sink.records) == 1


def test_a_failing_sink_is_counted_logged_once_and_disturbs_no_other(caplog):
    memory = Memory()
    fanout = opened(Broken(), memory)
    with caplog.at_level(logging.ERROR, "gradwatch"):
        for step in (1, 2, 3):
            fanout.put([record(step)], [])
            fanout.flush()
        fanout.close()
    assert len(memory.records) == 3
    assert fanout.sink_errors["Broken"] == 4
    assert len(caplog.records) == 1


def test_a_sink_that_exits_takes_no_other_with_it(caplog, monkeypatch):
    monkeypatch.setattr(Fanout, "PATIENCE_SECONDS", 5.0)
    memory = Opened()
    fanout = opened(Exits(), memory)
    fanout.put([record()], [])
    fanout.flush()
    assert len(memory.records) == 1
    fanout.close()
    assert memory.closed == 1
    assert fanout.sink_errors == {"Exits": 2, "Opened": 0}
    assert [r.getMessage().split(";")[0] for r in caplog.records] == ["The sink Exits failed"]


def test_a_slow_sink_delays_no_other_which_is_even_closed_before_it():
    slow, quick = Slow(), Arriving()
    fanout = opened(slow, quick)
    fanout.put([record(1)], [])
    assert slow.entered.wait(10)
    for step in range(2, 12):
        fanout.put([record(step)], [alert(step=step)])
    assert quick.has_all(11)
    ending = threading.Thread(target=fanout.close)
    ending.start()
    assert quick.is_closed.wait(10)
    assert slow.records == []
    slow.may_go_on.set()
    ending.join(10)
    assert len(slow.records) == 11


def test_what_one_sink_misses_is_counted_and_told_for_it_alone(caplog):
    slow, quick = Slow(), Opened()
    fanout = opened(slow, quick, capacity=1)
    fanout.put([record(1)], [])
    assert slow.entered.wait(10)
    assert all_written(fanout._outlets[1])
    for step in range(2, 12):
        fanout.put([record(step)], [alert(step=step)])
        assert all_written(fanout._outlets[1])
    assert caplog.records == []
    slow.may_go_on.set()
    fanout.close()
    assert fanout.dropped == {"Slow": 10, "Opened": 0}
    assert [r.step for r in slow.records] == [1]
    assert [a.step for a in slow.alerts] == list(range(2, 12))
    assert [entry.getMessage() for entry in caplog.records] == [
        "The sink Slow is too slow: 10 records are missing in it, and more may be; training and other sinks go on, "
        "this is logged once."
    ]


def test_a_handler_that_raises_ends_no_thread(monkeypatch):
    def raising(*_):
        raise SystemExit(1)

    monkeypatch.setattr(logging.getLogger("gradwatch"), "handle", raising)
    slow = Slow()
    fanout = opened(Broken(), slow, capacity=1)
    fanout.put([record(1)], [])
    assert slow.entered.wait(10)
    fanout.put([record(2)], [])
    slow.may_go_on.set()
    fanout.flush()
    fanout.put([record(3)], [])
    fanout.close()
    assert [r.step for r in slow.records] == [1, 3]
    assert fanout.sink_errors["Broken"] >= 3


def test_a_thread_that_cannot_be_begun_is_told_and_every_sink_is_closed(monkeypatch):
    begun, start = [], threading.Thread.start

    def one_only(self):
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", one_only)
    first, second = Opened(), Opened()
    with pytest.raises(RuntimeError, match="new thread"):
        opened(first, second)
    begun[0].join(10)
    assert (first.closed, second.closed) == (1, 1)


def test_two_sinks_that_flush_at_once_wait_for_neither():
    class Flushing(Memory):
        def write(self, records, alerts):
            both.wait(10)
            fanout.flush()
            super().write(records, alerts)

    both, sinks = threading.Barrier(2), (Flushing(), Flushing())
    fanout = opened(*sinks)
    fanout.put([record()], [])
    for place in (0, 1):
        assert all_written(fanout._outlets[place])
    fanout.close()
    assert [len(sink.records) for sink in sinks] == [1, 1]


def test_a_sink_that_cannot_be_opened_is_told_and_the_others_are_closed():
    first, never = Opened(), Opened()
    before = threading.active_count()
    with pytest.raises(SinkError, match="port is in use"):
        opened(first, Unopenable(), never)
    assert (first.closed, never.closed) == (1, 0)
    assert threading.active_count() == before


def test_without_sinks_there_is_no_thread():
    before = threading.active_count()
    fanout = opened()
    fanout.put([record()], [])
    assert threading.active_count() == before
    fanout.close()


def test_it_hands_the_run_and_its_health_to_the_sinks_that_want_them():
    class Curious(Memory):
        def open(self, run, health):
            self.run, self.health = run, health

    curious, run, health = Curious(), run_info(), Health
    fanout = Fanout([curious, Memory()])
    fanout.open(run, health)
    fanout.close()
    assert (curious.run, curious.health) == (run, health)


def test_each_sink_is_closed_once():
    sinks = Opened(), Opened()
    fanout = opened(*sinks)
    fanout.close()
    fanout.close()
    assert [sink.closed for sink in sinks] == [1, 1]


def test_what_comes_after_the_close_is_ignored():
    memory = Memory()
    fanout = opened(memory)
    fanout.close()
    fanout.put([record()], [alert()])
    fanout.flush()
    assert memory.records == []


def test_what_waits_is_written_in_one_go():
    class Counting(Slow):
        writes = 0

        def write(self, records, alerts):
            super().write(records, alerts)
            self.writes += 1

    slow = Counting()
    fanout = opened(slow)
    fanout.put([record(1)], [])
    assert slow.entered.wait(10)
    for step in range(2, 12):
        fanout.put([record(step)], [])
    slow.may_go_on.set()
    fanout.close()
    assert (slow.writes, len(slow.records)) == (2, 11)


def test_a_sink_that_hangs_holds_up_neither_a_flush_nor_the_end_for_ever(caplog, monkeypatch):
    monkeypatch.setattr(Fanout, "PATIENCE_SECONDS", 0.01)
    memory, slow = Memory(), Slow()
    fanout = opened(memory, slow)
    thread = thread_of(fanout, 1)
    fanout.put([record(1)], [])
    assert slow.entered.wait(10)
    fanout.flush()
    fanout.close()
    said = [entry.getMessage() for entry in caplog.records]
    assert said == [
        "After 0 s the sink Slow has not written everything yet; training goes on.",
        "After 0 s the sink Slow is left behind, and what it has not written may be lost; training goes on.",
    ]
    assert len(memory.records) == 1
    slow.may_go_on.set()
    thread.join(10)
    assert len(slow.records) == 1


def test_a_sink_cannot_take_records_away_from_the_next(caplog):
    memory = Memory()
    fanout = opened(Greedy(), memory)
    fanout.put([record()], [])
    fanout.close()
    assert len(memory.records) == 1


def test_a_record_is_made_in_the_thread_of_the_sink_that_reads_it_and_no_other_is(monkeypatch):
    made, original = [], Block._record
    monkeypatch.setattr(
        Block,
        "_record",
        lambda self, index: made.append((threading.current_thread().name, index)) or original(self, index),
    )
    first, second = Curious(), Curious()
    fanout = opened(first, second)
    fanout.put(Steps.of(block()), [])
    fanout.close()
    # The second finds what the first has made, unless both read at the same time.
    assert {index for _, index in made} == {2}
    assert {thread for thread, _ in made} <= {"gradwatch-Curious", "gradwatch-Curious-2"}


def test_records_dropped_are_counted_by_step_and_not_by_hand_over():
    slow = Slow()
    fanout = opened(slow, capacity=1)
    fanout.put(Steps.of(block(1)), [])
    assert slow.entered.wait(10)
    for _ in range(3):
        fanout.put(Steps.of(block(4)), [])
    slow.may_go_on.set()
    fanout.close()
    assert (len(slow.records), fanout.dropped) == (1, {"Slow": 12})


def test_two_sinks_of_one_class_are_counted_and_logged_each(caplog):
    fanout = opened(Broken(), Broken())
    assert fanout.sink_errors == {"Broken": 0, "Broken-2": 0}
    fanout.put([record()], [])
    fanout.close()
    assert fanout.sink_errors == {"Broken": 2, "Broken-2": 2}
    assert len(caplog.records) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_puts_nothing_and_waits_for_nothing():
    memory = Opened()
    fanout = opened(memory)
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; that it happens all the same is why this is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            fanout.put([record()], [])
            fanout.flush()
            fine = fanout._outlets[0]._queue.qsize() == 0
            fanout.close()
            os._exit(0 if fine and memory.closed == 0 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fanout.close()
    assert memory.closed == 1
