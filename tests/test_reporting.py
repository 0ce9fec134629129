from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from gradwatch import reporting
from gradwatch.reporting import Reporting


class Landing:
    """Steps that are their own records, and that arrive in blocks of four."""

    dropped = 0

    def __init__(self, *_: object) -> None:
        self.steps: deque[Any] = deque()

    def put(self, step: Any) -> None:
        self.steps.append(step)

    def arrived(self) -> Iterator[Any]:
        for _ in range(len(self.steps) - len(self.steps) % 4):
            yield self.steps.popleft()

    def awaited(self) -> Iterator[Any]:
        while self.steps:
            yield self.steps.popleft()

    def finish(self, normally: bool) -> Iterator[Any]:
        return self.awaited()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> tuple[Reporting, list[Any], list[Any]]:
    """A reporting, what it has reported, and what is done at each report."""
    monkeypatch.setattr(reporting, "Waiting", Landing)
    reported: list[Any] = []
    then: list[Any] = []

    def report(record: Any) -> None:
        reported.append(record)
        for do in then:
            do(record)

    made = Reporting(object(), report)  # type: ignore[arg-type]
    made.start(None)
    return made, reported, then


def take(made: Reporting, steps: range) -> None:
    for step in steps:
        made.take(step)  # type: ignore[arg-type]


def test_what_has_arrived_is_reported_and_a_reader_gets_the_rest(told: Any) -> None:
    made, reported, _ = told
    take(made, range(1, 7))
    made.take(None)
    assert reported == [1, 2, 3, 4]
    with made.caught_up():
        assert reported == [1, 2, 3, 4, 5, 6]


def test_a_callback_that_reads_does_not_overtake_what_is_being_reported(told: Any) -> None:
    made, reported, then = told
    seen = []

    def read(_: Any) -> None:
        with made.caught_up():
            seen.append(list(reported))

    then.append(read)
    take(made, range(1, 5))
    assert seen == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]


def test_a_callback_that_ends_the_tracking_gets_all_that_is_left_reported(told: Any) -> None:
    made, reported, then = told
    at_the_end = []

    def close(record: Any) -> None:
        if record == 2:
            made.finish(normally=True)
            at_the_end.append(list(reported))

    then.append(close)
    take(made, range(1, 4))
    made._waiting.steps.extend(range(4, 10))
    made.take(10)
    assert at_the_end == [list(range(1, 11))]
    assert reported == list(range(1, 11))
    made.finish(normally=True)
    assert reported == list(range(1, 11))


def test_a_report_that_raises_loses_no_later_record(told: Any) -> None:
    made, reported, then = told

    def fail(record: Any) -> None:
        if record == 2:
            raise ValueError("a sink")

    then.append(fail)
    with pytest.raises(ValueError, match="a sink"):
        take(made, range(1, 5))
    made.finish(normally=False)
    assert reported == [1, 2, 3, 4]
