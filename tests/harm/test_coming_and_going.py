"""Trackers and hooks come and go while steps run: no step may notice, and no hook may stay."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from tests.loops.models import loss_of, mlp


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = mlp()
    return model, torch.optim.SGD(model.parameters(), lr=0.05)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


def hooks(optimizer: torch.optim.Optimizer) -> list[Any]:
    both = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    assert [type(each) for each in both] == [OrderedDict, OrderedDict], "not torch's own"
    return [hook for each in both for hook in each.values()]


def nothing_of_ours(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    assert hooks(optimizer) == []
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


@pytest.mark.parametrize("users", [0, 1, 3])
def test_in_the_middle_of_a_step_of_another_thread(users: int) -> None:
    """The thread is in each of the user's hooks, and in the closure, when a tracker comes, and when it goes."""
    model, optimizer = made()
    turn, done, errors = threading.Semaphore(0), threading.Semaphore(0), []

    def pause(*_: object) -> None:
        turn.release()
        assert done.acquire(timeout=60)

    for _ in range(users):
        optimizer.register_step_pre_hook(pause)
        optimizer.register_step_post_hook(pause)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        pause()
        return loss

    steps = 8

    def train() -> None:
        try:
            for _ in range(steps):
                optimizer.step(closure)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    watch = None
    for _ in range(steps * (2 * users + 1)):
        assert turn.acquire(timeout=60)
        if watch is None:
            watch = gradwatch.track(optimizer, model).start()
        else:
            watch.close()
            watch = None
        done.release()
    thread.join(60)
    if watch is not None:
        watch.close()
    assert not errors
    assert hooks(optimizer) == [pause] * 2 * users


def test_in_a_hook_a_forward_a_closure_and_a_backward_of_the_same_thread() -> None:
    model, optimizer = made()
    kept: list[gradwatch.Watch] = []

    def come_and_go(*_: object) -> None:
        if kept:
            kept.pop().close()
        kept.append(gradwatch.track(optimizer, model).start())

    handles = [
        optimizer.register_step_pre_hook(come_and_go),
        optimizer.register_step_pre_hook(lambda *_: None),
        optimizer.register_step_post_hook(come_and_go),
        optimizer.register_step_post_hook(lambda *_: None),
        model.register_forward_hook(come_and_go),
        next(model.parameters()).register_hook(lambda gradient: come_and_go()),
    ]
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(5):
            step(model, optimizer)
    kept.pop().close()
    for handle in handles:
        handle.remove()
    assert [record.step for record in watch.history] == [1, 2, 3, 4, 5]
    assert watch.health().internal_errors == 0
    nothing_of_ours(model, optimizer)


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
@pytest.mark.parametrize("begun", [True, False], ids=["tracked", "never begun"])
def test_a_hook_of_the_users_that_removes_itself(register: str, begun: bool) -> None:
    """Torch lets the only one do so; beside ours it is still the only one."""
    model, optimizer = made()
    calls = []

    def once(*_: object) -> None:
        calls.append(1)
        handle.remove()

    watch = gradwatch.track(optimizer, model)
    if begun:
        watch.start()
    handle = getattr(optimizer, register)(once)
    step(model, optimizer)
    step(model, optimizer)
    watch.close()
    assert calls == [1]
    nothing_of_ours(model, optimizer)


def test_a_handle_from_the_time_of_a_tracker_removes_its_hook_afterwards() -> None:
    model, optimizer = made()
    calls = []
    earlier = optimizer.register_step_pre_hook(lambda *_: calls.append("earlier"))
    for _ in range(2):
        with gradwatch.track(optimizer, model):
            handle = optimizer.register_step_pre_hook(lambda *_: calls.append("meanwhile"))
        step(model, optimizer)
        handle.remove()
    step(model, optimizer)
    with gradwatch.track(optimizer, model):
        earlier.remove()
    step(model, optimizer)
    assert calls == ["earlier", "meanwhile"] * 2 + ["earlier"]
    nothing_of_ours(model, optimizer)


@pytest.mark.parametrize("begun", [True, False], ids=["closed", "never begun"])
def test_an_optimizer_is_not_kept_alive(begun: bool) -> None:
    """Nor by a hook of the user's that holds it."""
    model, optimizer = made()
    watch = gradwatch.track(optimizer, model)
    optimizer.register_step_pre_hook(lambda *_, held=optimizer: None)
    if begun:
        watch.start()
        step(model, optimizer)
        watch.close()
    seen = weakref.ref(optimizer)
    del watch, optimizer
    gc.collect()
    assert seen() is None


def several(count: int, work: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors


def test_in_several_threads_while_another_one_steps() -> None:
    model, optimizer = made()
    stop, failed = threading.Event(), []

    def train() -> None:
        try:
            while not stop.is_set():
                step(model, optimizer)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=train)
    thread.start()

    def come_and_go() -> None:
        for _ in range(60):
            with gradwatch.track(optimizer, model):
                pass

    several(3, come_and_go)
    stop.set()
    thread.join(60)
    assert not failed
    nothing_of_ours(model, optimizer)


def test_a_thousand_trackers_leave_no_hook() -> None:
    model, optimizer = made()
    for _ in range(1000):
        gradwatch.track(optimizer, model, rules=()).start().close()
    step(model, optimizer)
    nothing_of_ours(model, optimizer)
