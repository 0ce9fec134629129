"""Every line of every sink fails once, with one error or another: training is what it is without them."""

from __future__ import annotations

import errno
import gc
import itertools
import sys
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.records import Alert, StepRecord
from gradwatch.sinks import Console, Jsonl, Memory, Prometheus, TensorBoard

pytest.importorskip("tensorboard")
pytestmark = [
    # A server's thread of which a line fails.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    # Where the first line of a close fails, the garbage collector closes, and warns of it.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FOLDER = str(Path(gradwatch.sinks.__file__).parent)
# What keeps failures in is not a sink.
KEEPERS = ("fanout.py", "outlet.py", "__init__.py")
STEPS = 200

Place = tuple[str, int]


class InjectedError(Exception):
    """No error that any code knows of."""


ERRORS: tuple[Callable[[], BaseException], ...] = (
    InjectedError,
    lambda: OSError(errno.ENOSPC, "No space left on device"),
    MemoryError,
    lambda: ValueError("injected"),
    lambda: SystemExit(1),
)


class Injector:
    """Raises at each line of a sink the first time that it comes by."""

    def __init__(self) -> None:
        self.failed: set[Place] = set()
        self._errors = itertools.cycle(ERRORS)

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        return self._in_line if file.startswith(FOLDER) and not file.endswith(KEEPERS) else None

    def _in_line(self, frame: FrameType, event: str, _: object) -> Any:
        place = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and place not in self.failed:
            self.failed.add(place)
            raise next(self._errors)()
        return self._in_line


class Failing:
    """A sink in which lines fail, in some of its methods."""

    def __init__(self, sink: Any, injector: Injector, methods: tuple[str, ...]) -> None:
        self._sink, self._injector, self._methods = sink, injector, methods

    def open(self, *arguments: Any) -> None:
        self._call("open", *arguments)

    def write(self, *arguments: Any) -> None:
        self._call("write", *arguments)

    def close(self) -> None:
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        do = getattr(self._sink, method, None)
        if do is None:
            return
        before = sys.gettrace()
        # Python takes a trace function away that has raised.
        sys.settrace(self._injector if method in self._methods else before)
        try:
            do(*arguments)
        finally:
            sys.settrace(before)


class Kept:
    """Another sink, in which nothing fails."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []
        self.alerts: list[Alert] = []
        self.closed = 0

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        self.records += records
        self.alerts += alerts

    def close(self) -> None:
        self.closed += 1


SINKS: dict[str, Callable[[Path], Any]] = {
    "console": lambda folder: Console(),
    "jsonl": lambda folder: Jsonl(folder / "run.jsonl", max_bytes=20_000),
    "memory": lambda folder: Memory(),
    "prometheus": lambda folder: Prometheus(0, discovery=folder / "targets"),
    "tensorboard": lambda folder: TensorBoard(folder / "tensorboard"),
}


class Life:
    """A net that is trained with ills now and then."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9)

    def learn(self, each: Callable[[], object] = lambda: None) -> None:
        for step in range(STEPS):
            phase = step % 40
            loss = self.net(torch.randn(4, 3)).square().mean() * (
                0.0 if phase < 6 else 1e4 if phase == 20 else 1.0
            )
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            each()

    def left(self) -> list[bytes]:
        """All that training has changed, bit by bit."""
        state = [entry["momentum_buffer"] for entry in self.optimizer.state.values()]
        tensors = [*self.net.parameters(), *(p.grad for p in self.net.parameters()), *state, torch.get_rng_state()]
        return [tensor.detach().numpy().tobytes() for tensor in tensors]


@pytest.fixture(autouse=True)
def files_that_no_close_has_closed() -> Iterator[None]:
    """Are closed before the next test, which takes such a warning for an error."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def bare() -> list[bytes]:
    life = Life()
    life.learn()
    return life.left()


class Scraper:
    """Scrapes now and then, until nobody answers."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._steps = 0
        self._is_answered = True

    def scrape(self) -> None:
        url = getattr(self._sink, "url", None)
        self._steps += 1
        if url is None or self._steps % 10 or not self._is_answered:
            return
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                answer.read()
        except (OSError, HTTPException) as error:
            self._is_answered = "timed out" not in str(error)


def written_and_scraped(watch: gradwatch.Watch, scraper: Scraper) -> None:
    watch.flush()
    scraper.scrape()


def of_ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("gradwatch")]


@pytest.mark.parametrize("name", SINKS)
def test_no_line_of_a_sink_that_fails_changes_training_or_another_sink(
    name: str, bare: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradwatch.sinks.endpoint.Endpoint.TEXT_LASTS_SECONDS", 0.0)
    injector, failed = Injector(), -1
    for run in itertools.count():
        if failed == len(injector.failed):
            break
        failed = len(injector.failed)
        life, kept, sink = Life(), Kept(), SINKS[name](tmp_path / str(run))
        watch = gradwatch.track(
            life.optimizer, life.net, sinks=[Failing(sink, injector, ("write", "close")), kept], on_alert=print
        )
        threading.settrace(injector)
        try:
            with watch:
                life.learn(partial(written_and_scraped, watch, Scraper(sink)))
        finally:
            threading.settrace(None)  # type: ignore[arg-type]
        # Where the first line of its close has failed, it is still open.
        sink.close()
        assert life.left() == bare
        assert [record.step for record in kept.records] == list(range(1, STEPS + 1))
        assert kept.alerts == watch.alerts
        assert kept.closed == 1
        assert watch.health().internal_errors == 0
        assert of_ours() == []
    assert run > 1
    assert failed > {"memory": 1}.get(name, 30)


@pytest.mark.parametrize("name", SINKS)
def test_a_line_that_fails_when_a_sink_is_opened_is_told_and_leaves_nothing_behind(
    name: str, bare: list[bytes], tmp_path: Path
) -> None:
    injector = Injector()
    for run in itertools.count():
        failed = len(injector.failed)
        life, kept, sink = Life(), Kept(), SINKS[name](tmp_path / str(run))
        watch = gradwatch.track(life.optimizer, life.net, sinks=[kept, Failing(sink, injector, ("open",))])
        with suppress(Exception, SystemExit):
            watch.start()
        if len(injector.failed) == failed:
            assert kept.closed == 0
            break
        if kept.closed == 0:
            # A console that cannot have the terminal speaks in lines.
            assert name == "console"
            watch.close()
        assert of_ours() == []
    with closing(watch):
        life.learn()
    assert life.left() == bare
    assert kept.closed == 1
    assert run == 0 if name == "memory" else run > 4
