"""What a tracker does not track costs it a lookup: no gradient is read, no lock waited for, no list walked through."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch

OPEN = 50


class Loop:
    """A loop of its own; with more parameters than gradwatch hooks where it is deep."""

    def __init__(self, deep: bool = False) -> None:
        layers = 40 if deep else 1
        self.model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale(self.model(torch.ones(2, 4)).square().sum()).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()


@contextlib.contextmanager
def trackers(count: int, *, at_work: bool = True, deep: bool = False) -> Iterator[list[Loop]]:
    """So many trackers in this thread, each of which has taken a step."""
    with contextlib.ExitStack() as stack:
        loops = [Loop(deep) for _ in range(count)]
        for loop in loops:
            stack.enter_context(gradwatch.track(loop.optimizer, loop.model))
            if at_work:
                loop.step()
        yield loops


def calls(run: Callable[[], object]) -> int:
    """Calls of Python and of C functions that it makes."""
    seen = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        seen += event in ("call", "c_call")

    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return seen


@pytest.mark.parametrize("deep", [False, True], ids=["small", "deep"])
def test_an_untracked_step_costs_the_same_beside_fifty_trackers_as_beside_one(deep: bool) -> None:
    stranger = Loop()
    stranger.step()
    bare = calls(stranger.step)
    counted = []
    for count in (1, OPEN):
        with trackers(count, deep=deep):
            for _ in range(20):  # until those are forgotten that were at work in this thread
                stranger.step()
            counted.append(calls(stranger.step))
    assert counted[0] == counted[1]
    print(f"{bare} calls with a scaler and clipping, {counted[1]} beside {OPEN} trackers")
    assert counted[1] - bare < 80


def test_a_plain_untracked_step_is_called_as_without_and_its_backward_is_looked_up_once() -> None:
    stranger = Loop()
    stranger.step()
    loss = stranger.model(torch.ones(2, 4)).sum()
    bare = calls(lambda: loss.backward(retain_graph=True)), calls(stranger.optimizer.step)
    with trackers(OPEN):
        for _ in range(20):
            stranger.step()
        beside = calls(lambda: loss.backward(retain_graph=True)), calls(stranger.optimizer.step)
    print(f"{bare} calls of backward and step, {beside} beside {OPEN} trackers")
    assert beside[1] == bare[1]
    assert beside[0] - bare[0] <= 12


def test_an_untracked_step_in_another_thread_costs_the_same_beside_trackers_that_are_at_work() -> None:
    counted = []
    stranger = Loop()
    stranger.step()
    for count in (1, OPEN):
        with trackers(count):
            thread = threading.Thread(target=lambda: counted.append(calls(stranger.step)))
            thread.start()
            thread.join()
    assert counted[0] == counted[1]


class Guarded(nn.Parameter):
    """A parameter that notes who reads its gradient."""

    readers: list[str]

    @property
    def grad(self) -> Any:
        package = sys._getframe(1).f_globals.get("__name__", "")
        if package.startswith("gradwatch"):
            self.readers.append(package)
        return Tensor.grad.__get__(self)  # type: ignore[attr-defined]

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        Tensor.grad.__set__(self, gradient)  # type: ignore[attr-defined]


def guarded() -> Loop:
    loop = Loop()
    for layer in loop.model:
        layer.weight = Guarded(layer.weight.detach())  # type: ignore[union-attr]
        layer.weight.readers = []  # type: ignore[union-attr]
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.01)
    return loop


@pytest.mark.parametrize("here", [True, False], ids=["in the same thread", "in another"])
def test_no_gradient_of_a_stranger_is_read(here: bool) -> None:
    stranger = guarded()
    weight = stranger.model[0].weight
    with trackers(3) as loops:

        def steps() -> None:
            for _ in range(3):
                stranger.step()
                stranger.optimizer.zero_grad()
                nn.utils.clip_grad_norm_(stranger.model.parameters(), 1.0)  # with no gradient at all
                (stranger.model(torch.ones(2, 4)).sum() * float("nan")).backward()

        for loop in loops:
            loop.step()
            if here:
                steps()
        thread = threading.Thread(target=steps)
        thread.start()
        thread.join()
    assert not weight.readers  # type: ignore[union-attr]
    with gradwatch.track(stranger.optimizer, stranger.model):  # the guard sees what there is to be seen
        nn.utils.clip_grad_value_([weight], 1.0)
        stranger.optimizer.zero_grad()
    assert isinstance(weight, Guarded)


def test_a_stranger_waits_for_no_lock_of_a_tracker() -> None:
    """All of them are held by a thread that is at it for long."""
    held, done = threading.Event(), threading.Event()
    with contextlib.ExitStack() as stack:
        loops = [Loop() for _ in range(3)]
        watches = [stack.enter_context(gradwatch.track(loop.optimizer, loop.model)) for loop in loops]

        def hold() -> None:
            with contextlib.ExitStack() as locks:
                for watch in watches:
                    locks.enter_context(watch._reporting._lock)
                    for tracked in watch._observer.tracked.values():
                        locks.enter_context(tracked.lock)
                held.set()
                assert done.wait(60)

        holding = threading.Thread(target=hold)
        holding.start()
        assert held.wait(60)
        stepping = threading.Thread(target=Loop().step)
        stepping.start()
        stepping.join(30)
        waits = stepping.is_alive()
        done.set()
        holding.join()
        stepping.join()
    assert not waits


def test_a_look_at_one_loop_sees_nothing_of_another_threads() -> None:
    """It is armed where the first loop's gradient is zero."""
    mine, other = Loop(), Loop()
    with gradwatch.track(mine.optimizer, mine.model) as watch:
        for _ in range(6):
            mine.optimizer.zero_grad()
            (mine.model(torch.ones(2, 4)).sum() * 0.0).backward()
            mine.optimizer.step()
            armed = list(watch._explainer._armed.values())
            thread = threading.Thread(target=other.step)
            thread.start()
            thread.join()
            assert not any(diagnosis.passes for diagnosis in armed)
    assert {alert.cause.kind for alert in watch.alerts if alert.cause is not None} == {"zero-loss"}
