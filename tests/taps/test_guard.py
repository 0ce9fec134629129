"""What runs inside a training loop keeps its errors in, and stands aside where it has no business."""

from __future__ import annotations

import functools
import logging
import os

import pytest
import torch

from gradwatch.taps.guard import Guard, untraced


def fail() -> None:
    raise ZeroDivisionError


def test_an_error_is_kept_counted_and_logged_once_for_each_place(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    for _ in range(3):
        assert guard.around(fail)() is None
        assert guard.around(functools.partial(fail))() is None
    assert guard.errors == 6
    assert [record.getMessage() for record in caplog.records] == [
        "gradwatch failed in fail; training goes on, this is logged once."
    ]


def test_what_is_returned_passes_and_time_is_kept() -> None:
    guard = Guard()
    assert guard.around(lambda number: number + 1)(2) == 3
    assert guard.seconds > 0.0


def test_an_interrupt_passes() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guard().around(interrupt)()


def test_in_a_forked_child_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard()
    ran: list[int] = []
    call = guard.around(lambda: ran.append(1))
    call()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    call()
    assert ran == [1]
    assert guard.errors == 0


def test_while_a_graph_is_captured_nothing_runs_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    ran: list[int] = []
    call = Guard().around(lambda: ran.append(1))
    with caplog.at_level(logging.WARNING, "gradwatch"):
        call()
        call()
    assert ran == []
    assert [record.getMessage() for record in caplog.records] == [
        "gradwatch leaves out what is captured in a CUDA graph: its steps have no records."
    ]


def test_what_is_untraced_works_as_before() -> None:
    assert untraced(lambda number: number * 2)(4) == 8
