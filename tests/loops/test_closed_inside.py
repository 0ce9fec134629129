"""A tracker that is closed from inside the step that it watches."""

from __future__ import annotations

import math
import threading

import torch

import gradwatch
from tests.loops.models import loss_of, mlp


def test_a_tracker_closed_by_its_own_alert() -> None:
    """In the middle of a step, from inside the hooks that it removes."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer.register_step_post_hook(lambda *_: None)
    watch = gradwatch.track(optimizer, model, on_alert=lambda alert: watch.close())
    watch.__enter__()
    optimizer.register_step_post_hook(lambda *_: None)
    for number in range(4):
        optimizer.zero_grad()
        (loss_of(model) * (math.nan if number == 1 else 1.0)).backward()
        optimizer.step()
    assert [record.step for record in watch.history] == [1, 2]
    assert watch.health().internal_errors == 0
    assert len(optimizer._optimizer_step_post_hooks) == 2  # type: ignore[attr-defined]


def test_a_tracker_closed_by_a_hook_of_the_users() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    watch = gradwatch.track(optimizer, model)
    optimizer.register_step_pre_hook(lambda *_: watch.close() if watch.last else None)
    watch.__enter__()
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert [record.step for record in watch.history] == [1]
    assert watch.health().internal_errors == 0
    assert len(optimizer._optimizer_step_pre_hooks) == 1  # type: ignore[attr-defined]


def test_a_tracker_closed_while_another_thread_steps() -> None:
    """Torch iterates over the hooks there."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    inside, closed, errors = threading.Event(), threading.Event(), []

    def closure() -> torch.Tensor:
        loss = loss_of(model)
        inside.set()
        assert closed.wait(60)
        return loss

    def step() -> None:
        try:
            optimizer.step(closure)
        except BaseException as error:
            errors.append(error)

    watch = gradwatch.track(optimizer, model).start()
    thread = threading.Thread(target=step)
    thread.start()
    assert inside.wait(60)
    watch.close()
    closed.set()
    thread.join(60)
    assert not errors
    assert not watch.history
    assert watch.health().internal_errors == 0
    assert not optimizer._optimizer_step_pre_hooks  # type: ignore[attr-defined]
    assert not optimizer._optimizer_step_post_hooks  # type: ignore[attr-defined]


def test_a_tracker_closed_after_a_step_has_failed_in_another_thread() -> None:
    """Its frame lives on in the exception; the step does not."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    errors: list[BaseException] = []

    def step() -> None:
        try:
            optimizer.step(lambda: 1 / 0)  # type: ignore[arg-type]
        except ZeroDivisionError as error:
            errors.append(error)

    watch = gradwatch.track(optimizer, model).start()
    thread = threading.Thread(target=step)
    thread.start()
    thread.join(60)
    watch.close()
    assert len(errors) == 1
    assert not optimizer._optimizer_step_pre_hooks  # type: ignore[attr-defined]
    assert not optimizer._optimizer_step_post_hooks  # type: ignore[attr-defined]
