"""What runs inside a training loop keeps its errors in, and stands aside where it has no business."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading

import pytest
import torch

from gradwatch import shield as shielding
from gradwatch.shield import ErrorShield


def fail() -> None:
    raise ZeroDivisionError


def test_an_error_is_kept_counted_and_logged_once_for_each_place(caplog: pytest.LogCaptureFixture) -> None:
    shield = ErrorShield()
    for _ in range(3):
        assert shield.around(fail)() is None
        assert shield.around(functools.partial(fail))() is None
    assert shield.errors == 6
    assert [record.getMessage() for record in caplog.records] == [
        "gradwatch failed in fail; training goes on, this is logged once."
    ]


def test_what_is_returned_passes_and_time_is_kept() -> None:
    shield = ErrorShield()
    assert shield.around(lambda number: number + 1)(2) == 3
    assert shield.seconds > 0.0


def test_an_interrupt_passes() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ErrorShield().around(interrupt)()


def test_in_a_forked_child_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shield = ErrorShield()
    ran: list[int] = []
    call = shield.around(lambda: ran.append(1))
    call()
    monkeypatch.setattr(shielding, "_forks", 1 + shielding._forks)
    call()
    assert ran == [1]
    assert shield.errors == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_is_noticed_by_the_child_alone() -> None:
    call = ErrorShield().around(lambda: 7)
    child = os.fork()
    if child == 0:
        os._exit(0 if call() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call() == 7


def test_time_inside_a_call_that_is_inside_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(shielding.time, "perf_counter", lambda: float(next(clock)))
    shield = ErrorShield()
    inner = shield.around(lambda: None)
    shield.around(lambda: [inner() for _ in range(10)])()
    # The clock was asked when each began, and when the outer one ended.
    assert shield.seconds == 11.0
    inner()
    assert shield.seconds == 12.0


def test_time_of_threads_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shielding.time, "perf_counter", iter([0.0, 1.0, 5.0, 7.0]).__next__)
    shield = ErrorShield()
    call = shield.around(lambda: None)
    call()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert shield.seconds == 3.0


def test_an_error_inside_a_call_inside_another_is_kept_and_both_are_left() -> None:
    shield = ErrorShield()
    assert shield.around(lambda: shield.around(fail)())() is None
    assert (shield.errors, shield._inside) == (1, False)


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
