"""The queue of one sink: bounded in bytes, whatever a step takes up."""

import queue
import threading

import numpy as np
import pytest

from gradwatch.blocks import Block, Facts, Layout, StepRow, Steps
from gradwatch.sinks import Memory
from gradwatch.sinks.outlet import Outlet, bytes_of
from tests.made_up import alert, record
from tests.sinks.marks import all_written


class Gated(Memory):
    def __init__(self):
        super().__init__()
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        self.writes = []

    def write(self, records, alerts):
        self.entered.set()
        assert self.may_go_on.wait(10)
        self.writes.append(len(records))
        super().write(records, alerts)


def block(columns, length=16):
    names = [f"layer.{i}" for i in range(columns)]
    layout = Layout("actor", names, {"layer": np.arange(columns)}, {}, np.zeros(columns))
    facts = Facts.usual(columns)
    rows = [StepRow(step, float(step), facts) for step in range(1, length + 1)]
    return Steps.of(Block(layout, rows, np.ones((length, columns)), np.ones((length, columns))))


@pytest.fixture
def gated():
    return Gated()


def begun(sink, capacity):
    outlet = Outlet("Gated", sink, capacity)
    outlet.thread.start()
    return outlet


def filled(outlet, sink, steps, times=100):
    """How many of these fit behind one that is being written."""
    size = bytes_of(steps)
    outlet.put(steps, size, ())
    assert sink.entered.wait(10)
    for _ in range(times):
        outlet.put(steps, size, ())
    return times - outlet.dropped // len(steps)


@pytest.mark.parametrize("columns", [1, 1000])
def test_what_waits_and_is_written_is_bounded_in_bytes(gated, columns):
    steps = block(columns)
    outlet = begun(gated, capacity=10 * bytes_of(steps))
    assert filled(outlet, gated, steps) == 9
    gated.may_go_on.set()
    outlet.end()
    outlet.thread.join(10)
    assert len(gated.records) == 10 * 16


def test_what_is_larger_than_all_the_room_is_taken_where_nothing_else_waits(gated):
    gated.may_go_on.set()
    steps = block(10)
    outlet = begun(gated, capacity=1)
    for _ in range(3):
        outlet.put(steps, bytes_of(steps), ())
        assert all_written(outlet)
    outlet.end()
    outlet.thread.join(10)
    assert (len(gated.records), outlet.dropped) == (48, 0)


def test_an_alert_waits_whatever_waits_before_it(gated):
    outlet = begun(gated, capacity=1)
    assert filled(outlet, gated, block(1), 1) == 0
    outlet.put(Steps.of([record(2)]), 1, [alert()])
    gated.may_go_on.set()
    outlet.end()
    outlet.thread.join(10)
    assert len(gated.alerts) == 1
    assert outlet.dropped == 17


def test_much_that_waits_is_not_written_in_one_go(gated, monkeypatch):
    steps = block(10)
    monkeypatch.setattr(Outlet, "BYTES_AT_ONCE", 3 * bytes_of(steps))
    outlet = begun(gated, capacity=1 << 30)
    filled(outlet, gated, steps, 7)
    gated.may_go_on.set()
    outlet.end()
    outlet.thread.join(10)
    assert gated.writes == [16, 48, 48, 16]


class Told(Memory):
    """Tells how many steps came in each write."""

    def __init__(self, prompt=False, patient=False):
        super().__init__()
        self.prompt, self.patient, self.writes = prompt, patient, queue.SimpleQueue()

    def write(self, records, alerts):
        self.writes.put(len(records))


@pytest.fixture
def long_rests(monkeypatch):
    monkeypatch.setattr(Outlet, "REST_SECONDS", 1000)


def put(outlet, steps, alerts=()):
    outlet.put(steps, bytes_of(steps), alerts)


class Calm:
    """Tells when a rest has begun."""

    def __init__(self, outlet):
        self.resting, self._lock = threading.Semaphore(0), outlet._calm
        self.release = self._lock.release
        outlet._calm = self

    def acquire(self, timeout):
        self.timeout = timeout
        self.resting.release()
        return self._lock.acquire(timeout=timeout)


def test_steps_gather_while_a_sink_rests_until_somebody_waits(long_rests):
    sink, steps = Told(), block(1)
    outlet = Outlet("Told", sink, 1 << 30)
    calm = Calm(outlet)
    outlet.thread.start()
    for ends in (lambda: all_written(outlet), lambda: all_written(outlet), outlet.end):
        # Before the first write too.
        assert calm.resting.acquire(timeout=10)
        for _ in range(3):
            put(outlet, steps)
        assert sink.writes.empty()
        ends()
        assert sink.writes.get(timeout=10) == 48
    outlet.thread.join(10)
    assert not outlet.thread.is_alive()


def test_a_patient_sink_rests_until_an_alert_comes_or_the_end():
    sink, steps = Told(patient=True), block(1)
    outlet = Outlet("Told", sink, 1 << 30)
    calm = Calm(outlet)
    outlet.thread.start()
    for ends in (lambda: put(outlet, steps, [alert()]), outlet.end):
        assert calm.resting.acquire(timeout=10)
        assert calm.timeout == -1
        put(outlet, steps)
        assert all_written(outlet)
        put(outlet, steps)
        assert sink.writes.empty()
        ends()
        assert sink.writes.get(timeout=10) == (32 if ends == outlet.end else 48)
    outlet.thread.join(10)
    assert not outlet.thread.is_alive()


def test_a_patient_sink_is_waited_for_where_an_alert_is_on_its_way(gated):
    gated.patient = True
    outlet = begun(gated, 1 << 30)
    put(outlet, block(1), [alert()])
    assert gated.entered.wait(10)
    written = threading.Event()
    outlet.mark(written.set)
    assert not written.is_set()
    gated.may_go_on.set()
    assert written.wait(10)
    outlet.end()
    outlet.thread.join(10)


def test_a_rest_ends_by_itself(monkeypatch):
    monkeypatch.setattr(Outlet, "REST_SECONDS", 0.01)
    sink = Told()
    outlet = begun(sink, 1 << 30)
    for _ in range(3):
        put(outlet, block(1))
        assert sink.writes.get(timeout=10) == 16
    outlet.end()
    outlet.thread.join(10)


@pytest.mark.parametrize("why", ["an alert", "much that waits", "a sink that is prompt"])
def test_nobody_rests_with(why, long_rests, monkeypatch):
    sink, steps = Told(prompt=why == "a sink that is prompt"), block(1)
    if why == "much that waits":
        monkeypatch.setattr(Outlet, "BYTES_AT_ONCE", bytes_of(steps))
    outlet = begun(sink, 1 << 30)
    for _ in range(3):
        put(outlet, steps, [alert()] if why == "an alert" else ())
        assert sink.writes.get(timeout=10) == 16
    outlet.end()
    outlet.thread.join(10)


def test_what_is_put_after_the_end_is_ignored_and_a_second_end_is_no_harm(gated):
    gated.may_go_on.set()
    outlet = begun(gated, 1000)
    outlet.end()
    outlet.thread.join(10)
    outlet.end()
    outlet.put(block(1), 1, [alert()])
    assert outlet._came == outlet._gone == 0


def test_a_step_of_a_large_model_counts_as_such():
    small, large = (bytes_of(block(columns)) for columns in (10, 10_000))
    assert small < 50_000
    # Both norms of each of 16 steps are 2.56 MB, without anything that was worked out.
    assert large > 2_560_000
