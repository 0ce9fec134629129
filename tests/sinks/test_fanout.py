import logging
import threading

import pytest

from gradwatch.errors import SinkError
from gradwatch.records import Health
from gradwatch.sinks import Memory
from gradwatch.sinks.fanout import Fanout
from tests.made_up import alert, record, run_info


class Broken:
    def write(self, records, alerts):
        raise ValueError("disk on fire")

    def close(self):
        raise ValueError("still on fire")


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


def opened(*sinks, **options):
    fanout = Fanout(sinks, **options)
    fanout.open(run_info(), Health)
    return fanout


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


def test_a_slow_sink_drops_records_but_no_alert_and_never_blocks():
    slow = Slow()
    fanout = opened(slow, capacity=2)
    fanout.put([record(1)], [])
    assert slow.entered.wait(10)
    for step in range(2, 12):
        fanout.put([record(step)], [alert(step=step)])
    slow.may_go_on.set()
    fanout.close()
    assert fanout.dropped_records == 8
    assert [r.step for r in slow.records] == [1, 2, 3]
    assert [a.step for a in slow.alerts] == list(range(2, 12))


def test_a_sink_that_cannot_be_opened_is_told_and_the_others_are_closed():
    first = Opened()
    with pytest.raises(SinkError, match="port is in use"):
        opened(first, Unopenable())
    assert first.closed == 1


def test_without_sinks_there_is_no_thread():
    before = threading.active_count()
    fanout = opened()
    fanout.put([record()], [])
    assert threading.active_count() == before
    fanout.close()
