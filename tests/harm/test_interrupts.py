"""An interrupt before any line of begin and end leaves nothing behind that a second ``close`` does not remove."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import gradwatch
from tests.harm.interrupted import Interrupt, left_behind, lines_of
from tests.loops.models import loss_of, mlp

INTERRUPTS = 1000


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "gradwatch")


class Loop:
    def __init__(self) -> None:
        self.model = mlp()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)

    def track(self) -> gradwatch.Watch:
        return gradwatch.track(self.optimizer, self.model)

    def step(self, factor: float = 1.0) -> None:
        self.optimizer.zero_grad()
        (loss_of(self.model) * factor).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def begun(self) -> gradwatch.Watch:
        """One that has begun and looks for a cause."""
        watch = self.track().start()
        self.step()
        self.step(0.0)
        return watch

    def left_behind(self) -> dict[str, object]:
        return left_behind(self.model, self.optimizer)


def lines(which: str) -> list[int]:
    """All of `start`, and as many of `close` at random that there are a thousand in all."""
    loop = Loop()
    watch = loop.track()
    entering = lines_of(watch.start)
    loop.step()
    loop.step(0.0)
    leaving = lines_of(watch.close)
    if which == "start":
        return list(range(1, entering + 1))
    drawn = random.Random(0)
    return [drawn.randint(1, leaving) for _ in range(INTERRUPTS - entering)]


def interrupted(run: object, at: int) -> str:
    """Where that was."""
    with Interrupt(at) as interrupt, contextlib.suppress(KeyboardInterrupt):
        run()  # type: ignore[operator]
    return interrupt.where


@pytest.mark.parametrize("which", ["start", "close"])
def test_a_second_close_removes_what_an_interrupt_has_left(which: str) -> None:
    loop = Loop()
    clean = loop.left_behind()
    for at in lines(which):
        watch = loop.track() if which == "start" else loop.begun()
        where = interrupted(getattr(watch, which), at)
        watch.close()
        assert loop.left_behind() == clean, where
        assert not watch.health().internal_errors, where
    with loop.track() as watch:
        loop.step()
    assert len(watch.history) == 1


def test_start_takes_back_by_itself_what_it_has_begun() -> None:
    """Whoever is interrupted in ``with gradwatch.track(...)`` has nothing to close."""
    loop = Loop()
    clean = loop.left_behind()
    for at in lines("start")[1::5]:
        watch = loop.track()
        where = interrupted(watch.start, at)
        assert loop.left_behind() == clean, where


@pytest.mark.parametrize("which", ["start", "close"])
def test_nothing_holds_a_tracker_that_was_interrupted_and_closed(which: str) -> None:
    """Not the end of the interpreter, no hook, no thread, no list of listeners."""
    loop = Loop()
    for at in lines(which)[::100]:
        watch = loop.track() if which == "start" else loop.begun()
        where = interrupted(getattr(watch, which), at)
        watch.close()
        seen = weakref.ref(watch)
        del watch
        patience = time.monotonic() + 30.0
        while gc.collect() >= 0 and seen() is not None:
            assert time.monotonic() < patience, where
            time.sleep(0.01)


def test_a_tracker_in_another_thread_works_after_an_interrupt() -> None:
    """No lock stays taken."""
    for at in lines("start")[::20]:
        loop = Loop()
        watch = loop.track()
        where = interrupted(watch.start, at)
        watch.close()
        done = threading.Event()

        def track(done: threading.Event = done) -> None:
            other = Loop()
            with other.track():
                other.step()
            done.set()

        threading.Thread(target=track, daemon=True).start()
        assert done.wait(60), where


def test_an_interrupted_patch_is_taken_back_and_put_again() -> None:
    """One that another tracker holds stays in place."""
    outer, inner = Loop(), Loop()
    with outer.track() as watch:
        for at in lines("start")[::10]:
            inside = inner.track()
            where = interrupted(inside.start, at)
            inside.close()
            outer.step()
            assert watch["optimizer"].clips, where


# A file that is opened in the very line of the interrupt is closed by Python, which says so.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("which", ["start", "close"])
def test_sinks_end_as_well(which: str, tmp_path: Path) -> None:
    """No thread, no file and no socket of theirs is left."""

    def track() -> gradwatch.Watch:
        sinks = [gradwatch.sinks.Jsonl(tmp_path / "run.jsonl"), gradwatch.sinks.Prometheus(port=0)]
        return gradwatch.track(loop.optimizer, loop.model, sinks=sinks)

    loop = Loop()
    with track() as watch:  # what is imported and opened once
        loop.step()
    clean, held = loop.left_behind(), descriptors()
    watch = track()
    count = lines_of(watch.start)
    count = count if which == "start" else lines_of(watch.close)
    watch.close()
    for at in range(1, count, 37):
        watch = track()
        if which == "close":
            watch.start()
            loop.step()
        where = interrupted(getattr(watch, which), at)
        watch.close()
        # Threads that were begun end in their own time.
        patience = time.monotonic() + 30.0
        while of_ours() or descriptors() > held or loop.left_behind() != clean:
            assert time.monotonic() < patience, (where, of_ours(), descriptors(), held, loop.left_behind())
            time.sleep(0.01)


def of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gradwatch")]


def descriptors() -> int:
    held = Path("/proc/self/fd")
    return len(list(held.iterdir())) if held.is_dir() else 0
