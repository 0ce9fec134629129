"""What is the user's and called by gradwatch: it may raise, wait, read, and end the tracking. Training goes on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import logging
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.records import Severity
from tests.harm.threads import run
from tests.loops.models import mlp

STEPS = 24

log = logging.getLogger("gradwatch")


def train(**tracking: Any) -> tuple[list[Tensor], gradwatch.Watch | None]:
    """A loop whose loss is NaN, 0 and huge for a while; its weights at the end."""
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    watch = gradwatch.track(optimizer, model, **tracking) if tracking else None
    with watch or contextlib.nullcontext():
        for number in range(STEPS):
            optimizer.zero_grad()
            factor = {5: math.nan, 12: 0.0, 13: 0.0, 14: 0.0, 18: 1e6}.get(number, 1.0)
            (model(torch.ones(2, 4)).square().mean() * factor).backward()
            if factor == factor:
                optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()], watch


def assert_trained_as_without(**tracking: Any) -> gradwatch.Watch:
    bare, _ = train()
    weights, watch = train(**tracking)
    assert all(map(torch.equal, bare, weights))
    assert watch is not None
    assert len(watch.history) == STEPS - 1
    return watch


class Broken(logging.Handler):
    """A handler whose ``emit`` raises, as one does that writes to a service that is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        raise ConnectionError


@contextlib.contextmanager
def handled_by(handler: logging.Handler) -> Iterator[None]:
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def fail(*_: object) -> None:
    raise ZeroDivisionError


class FailingRule:
    id = "failing"
    severity: Severity = "warning"
    fires_after = 1
    clears_after = 1

    def look(self, record: gradwatch.StepRecord) -> None:
        fail()


class FailingSink:
    def __init__(self) -> None:
        self.written = 0

    def write(self, records: Any, alerts: Any) -> None:
        self.written += len(records)
        fail()

    def close(self) -> None:
        fail()


def test_a_callback_that_raises() -> None:
    watch = assert_trained_as_without(on_alert=fail)
    assert watch.health().internal_errors == len(watch.alerts) > 0


def test_a_handler_of_the_log_that_raises() -> None:
    """At whatever gradwatch says: an alert, a callback, a rule and a sink that failed."""
    for told in ({"on_alert": fail}, {"rules": [*gradwatch.default_rules(), FailingRule()]}, {"depth": 1}):
        handler = Broken()
        with handled_by(handler):
            watch = assert_trained_as_without(**told)
        assert handler.calls
        assert watch.health().internal_errors >= handler.calls


def test_a_handler_of_the_log_that_raises_where_a_sink_has_failed() -> None:
    """The thread of the sinks lives on, and is not waited for at the end."""
    sink, other = FailingSink(), gradwatch.sinks.Memory()
    with handled_by(Broken()):
        watch = assert_trained_as_without(sinks=[sink, other])
    assert sink.written == len(other.records) == STEPS - 1
    assert watch.health().sink_errors["FailingSink"] > 1


def test_a_watch_that_was_never_begun_beside_a_handler_that_raises() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradwatch.track(optimizer, model)
    handler = Broken()
    with handled_by(handler):
        optimizer.step()
    assert handler.calls == 1


class Reading(logging.Handler):
    """A handler that reads the watch in another thread, and waits for that."""

    def __init__(self, pool: concurrent.futures.Executor, read: Callable[[], object]) -> None:
        super().__init__()
        self.pool, self.read, self.done = pool, read, 0

    def emit(self, record: logging.LogRecord) -> None:
        self.pool.submit(self.read).result(timeout=30)
        self.done += 1


def test_a_handler_that_waits_for_a_thread_that_reads() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        watch = gradwatch.track(optimizer, model)
        handler = Reading(pool, lambda: (watch.history, watch.alerts, watch.last, watch.incidents))
        with handled_by(handler), watch:
            for number in range(8):
                optimizer.zero_grad()
                (model(torch.ones(2, 4)).sum() * (math.nan if number == 3 else 1.0)).backward()
                optimizer.step()
    assert handler.done
    assert watch.health().internal_errors == 0


def test_a_callback_that_waits_for_a_reader_holds_up_no_other_model() -> None:
    """`callback_that_waits`: and what the other thread trains is no business of the tracker."""
    model, other = mlp(), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    read = []

    def stranger() -> None:
        for _ in range(20):
            other(torch.ones(2, 4)).sum().backward()

    with concurrent.futures.ThreadPoolExecutor() as pool:

        def on_alert(_: gradwatch.Alert) -> None:
            pool.submit(stranger).result(timeout=30)
            read.append(pool.submit(lambda: len(watch.history)).result(timeout=30))

        with gradwatch.track(optimizer, model, on_alert=on_alert) as watch:
            for number in range(6):
                optimizer.zero_grad()
                (model(torch.ones(2, 4)).sum() * (math.nan if number == 3 else 1.0)).backward()
                optimizer.step()
    assert read
    assert watch.health().internal_errors == 0


class Dead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.dead = nn.Linear(4, 1), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


def test_a_loop_that_saves_its_model_while_a_cause_is_looked_for() -> None:
    """`save_while_looking`."""

    model = Dead()
    optimizer = torch.optim.Adam(model.parameters())
    sizes = set()
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(12):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            buffer = io.BytesIO()
            torch.save(model, buffer)
            sizes.add(len(buffer.getvalue()))
    assert len(sizes) == 1
    assert watch.alerts


def test_two_threads_of_which_one_meets_nan_now_and_then() -> None:
    """`threads_one_nan`, for as long as a test may take; ``python -m tests.harm.threads`` goes on for long."""
    steps = run(seconds=4.0)
    assert all(steps), steps
    assert threading.active_count() < 20
