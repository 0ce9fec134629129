"""What runs inside a training loop keeps its errors in, and stands aside where it has no business."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import threading
import time
import weakref

import pytest
import torch

from gradwatch import shield as shielding
from gradwatch.measure import harmless, kernel
from gradwatch.shield import ErrorShield


def fail() -> None:
    raise ZeroDivisionError


@pytest.fixture(params=[kernel.Shield, harmless.Shield], ids=["as built", "pure"])
def shield(request: pytest.FixtureRequest) -> ErrorShield:
    return ErrorShield(request.param)


def test_an_error_is_kept_counted_and_logged_once_for_each_place(
    shield: ErrorShield, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert shield.around(fail)() is None
        assert shield.around(functools.partial(fail))() is None
    assert shield.errors == 6
    assert [record.getMessage() for record in caplog.records] == [
        "gradwatch failed in fail; training goes on, this is logged once."
    ]


def test_what_is_returned_passes_and_time_is_kept(shield: ErrorShield) -> None:
    assert shield.around(lambda number: number + 1)(2) == 3
    assert shield.seconds > 0.0


@pytest.mark.parametrize("count", range(7))
def test_what_is_given_arrives(shield: ErrorShield, count: int) -> None:
    given: list[object] = [object() for _ in range(count)]
    call = shield.around(lambda *args, **kwargs: (list(args), kwargs))
    assert call(*given) == (given, {})
    assert call(*given, one=1, two=given) == (given, {"one": 1, "two": given})


def test_time_inside_another_call_counts_once(shield: ErrorShield) -> None:
    inner = shield.around(lambda: time.sleep(0.01))
    began = time.perf_counter()
    shield.around(lambda: [inner() for _ in range(3)])()
    assert 0.03 <= shield.seconds <= time.perf_counter() - began


def test_nothing_is_held_when_it_is_gone() -> None:
    shield, held = ErrorShield(), object.__new__(type("Held", (), {"__call__": lambda self: None}))
    call, gone = shield.around(held), weakref.ref(held)
    call()
    del shield, held, call
    gc.collect()
    assert gone() is None


def test_an_interrupt_passes(shield: ErrorShield) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shield.around(interrupt)()


def test_in_a_forked_child_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shield = ErrorShield(harmless.Shield)
    ran: list[int] = []
    call = shield.around(lambda: ran.append(1))
    call()
    monkeypatch.setattr(harmless, "_forks", 1 + harmless._forks)
    call()
    assert ran == [1]
    assert shield.errors == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_is_noticed_by_the_child_alone(shield: ErrorShield) -> None:
    call = shield.around(lambda: 7)
    child = os.fork()
    if child == 0:
        os._exit(0 if call() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call() == 7


def test_time_inside_a_call_that_is_inside_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(harmless.time, "perf_counter", lambda: float(next(clock)))
    shield = ErrorShield(harmless.Shield)
    inner = shield.around(lambda: None)
    shield.around(lambda: [inner() for _ in range(10)])()
    # The clock was asked when each began, and when the outer one ended.
    assert shield.seconds == 11.0
    inner()
    assert shield.seconds == 12.0


def test_time_of_threads_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmless.time, "perf_counter", iter([0.0, 1.0, 5.0, 7.0]).__next__)
    shield = ErrorShield(harmless.Shield)
    call = shield.around(lambda: None)
    call()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert shield.seconds == 3.0


def test_an_error_inside_a_call_inside_another_is_kept_and_both_are_left(shield: ErrorShield) -> None:
    assert shield.around(lambda: shield.around(fail)())() is None
    assert shield.errors == 1
    before = shield.seconds
    shield.around(lambda: None)()
    assert shield.seconds > before


def test_while_a_graph_is_captured_nothing_runs_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shielding, "_MAY_CAPTURE", True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    ran: list[int] = []
    call = ErrorShield().around(lambda: ran.append(1))
    with caplog.at_level(logging.WARNING, "gradwatch"):
        call()
        call()
    assert ran == []
    assert [record.getMessage() for record in caplog.records] == [
        "gradwatch leaves out what is captured in a CUDA graph: its steps have no records."
    ]
