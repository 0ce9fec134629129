"""Every line of every sink fails once, with one error or another: training is what it is without them."""

from __future__ import annotations

import errno
import gc
import importlib
import inspect
import itertools
import pkgutil
import sys
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.errors import SinkError
from gradwatch.records import Alert, StepRecord
from gradwatch.sinks import Console
from tests.sinks.stands import FEWEST, SINKS, Stands, taken

pytest.importorskip("tensorboard")
pytest.importorskip("opentelemetry.sdk")
pytestmark = [
    # A server's thread of which a line fails.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    # Where the first line of a close fails, the garbage collector closes, and warns of it.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FOLDER = str(Path(gradwatch.sinks.__file__).parent)
# What keeps failures in is not a sink.
KEEPERS = ("fanout.py", "outlet.py", "__init__.py")
STEPS = 80

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


def named(sink: type) -> str:
    return sink.__name__


def sinks_of_gradwatch() -> set[type]:
    """All classes in the folder of the sinks that are one."""
    modules = [
        importlib.import_module(f"gradwatch.sinks.{found.name}") for found in pkgutil.iter_modules([FOLDER])
    ]
    classes = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    return {
        kind
        for kind in classes
        if kind.__module__.startswith("gradwatch.sinks.")
        and hasattr(kind, "close")
        and list(inspect.signature(getattr(kind, "write", taken)).parameters)[1:] == ["records", "alerts"]
    }


def test_there_is_none_that_is_not_tried_here() -> None:
    assert sinks_of_gradwatch() == set(SINKS)
    assert {getattr(gradwatch.sinks, name) for name in gradwatch.sinks.__all__} - set(SINKS) == {
        gradwatch.sinks.Sink
    }


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a server that takes what is posted."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def stands(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Stands]:
    monkeypatch.setattr("gradwatch.sinks.endpoint.Endpoint.TEXT_LASTS_SECONDS", 0.0)
    monkeypatch.setattr("gradwatch.sinks.webhook.Webhook.FIRST_PAUSE", 0.0)
    return lambda run: Stands(tmp_path / str(run), url, monkeypatch)


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


def written_and_scraped(watch: gradwatch.Watch, scraper: Scraper, stands: Stands) -> None:
    watch.flush()
    scraper.scrape()
    stands.program()


def of_ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("gradwatch")]


@pytest.mark.parametrize("kind", SINKS, ids=named)
def test_no_line_of_a_sink_that_fails_changes_training_or_another_sink(
    kind: type, bare: list[bytes], stands: Callable[[int], Stands]
) -> None:
    injector, failed = Injector(), -1
    for run in itertools.count():
        if failed == len(injector.failed):
            break
        failed = len(injector.failed)
        life, kept, world = Life(), Kept(), stands(run)
        sink = SINKS[kind](world)
        watch = gradwatch.track(
            life.optimizer, life.net, sinks=[Failing(sink, injector, ("write", "close")), kept], on_alert=print
        )
        threading.settrace(injector)
        try:
            with watch:
                life.learn(partial(written_and_scraped, watch, Scraper(sink), world))
        finally:
            threading.settrace(None)  # type: ignore[arg-type]
        # Where the first line of its close has failed, it is still open.
        with suppress(SinkError):
            sink.close()
        assert life.left() == bare
        assert [record.step for record in kept.records] == list(range(1, STEPS + 1))
        assert kept.alerts == watch.alerts
        assert kept.closed == 1
        assert watch.health().internal_errors == 0
        assert of_ours() == []
    assert run > 1
    assert failed > FEWEST.get(kind, (30, 0))[0] - 1


@pytest.mark.parametrize("kind", SINKS, ids=named)
def test_a_line_that_fails_when_a_sink_is_opened_is_told_and_leaves_nothing_behind(
    kind: type, bare: list[bytes], stands: Callable[[int], Stands]
) -> None:
    injector = Injector()
    for run in itertools.count():
        failed = len(injector.failed)
        life, kept, sink = Life(), Kept(), SINKS[kind](stands(run))
        watch = gradwatch.track(life.optimizer, life.net, sinks=[kept, Failing(sink, injector, ("open",))])
        with suppress(Exception, SystemExit):
            watch.start()
        if len(injector.failed) == failed:
            assert kept.closed == 0
            break
        if kept.closed == 0:
            # A console that cannot have the terminal speaks in lines.
            assert kind is Console
            watch.close()
        assert of_ours() == []
    with closing(watch):
        life.learn()
    assert life.left() == bare
    assert kept.closed == 1
    assert run >= FEWEST.get(kind, (0, 5))[1]
