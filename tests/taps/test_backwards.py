"""The end of a backward pass is told once, with what it wrote, when the gradients are there."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.taps.backwards import BackwardTap


class Told:
    def __init__(self, *parameters: Tensor) -> None:
        self.passes: list[tuple[int, ...]] = []
        self.tap = BackwardTap(lambda slots, _: self.passes.append(slots))
        self.tap.watch(enumerate(parameters))


def three() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2)) for _ in range(3)]


def test_one_pass_is_told_once_with_what_it_wrote() -> None:
    p, q, r = three()
    told = Told(p, q, r)
    (p * r).sum().backward()
    assert [set(slots) for slots in told.passes] == [{0, 2}]
    (q * 2).sum().backward()
    assert told.passes[1:] == [(1,)]


def test_the_gradients_are_there_when_it_is_told() -> None:
    p, q, _ = three()
    seen: list[bool] = []
    tap = BackwardTap(lambda slots, _: seen.append(p.grad is not None and q.grad is not None))
    tap.watch([(0, p), (1, q)])
    (p * q).sum().backward()
    assert seen == [True]


def test_a_parameter_used_many_times_is_named_once() -> None:
    (p, *_) = three()
    told = Told(p)
    (p * p + p.exp() * p).sum().backward()
    assert told.passes == [(0,)]


def test_an_exception_in_backward_leaves_nothing_behind() -> None:
    p, q, _ = three()
    told = Told(p, q)

    def fail(_: Tensor) -> None:
        raise ZeroDivisionError

    middle = p * 2
    middle.register_hook(fail)
    with pytest.raises(ZeroDivisionError):
        (middle * q).sum().backward()
    told.passes.clear()
    (p * q).sum().backward()
    assert [set(slots) for slots in told.passes] == [{0, 1}]


def test_many_failed_passes_are_not_kept() -> None:
    p, q, _ = three()
    told = Told(p, q)

    def fail(_: Tensor) -> None:
        raise ZeroDivisionError

    for _ in range(3 * BackwardTap.MOST_OPEN_PASSES):
        middle = p * 2
        middle.register_hook(fail)
        with pytest.raises(ZeroDivisionError):
            (middle + q).sum().backward()
    assert len(told.tap._written) <= BackwardTap.MOST_OPEN_PASSES


def test_a_backward_inside_a_backward() -> None:
    p, q, _ = three()
    told = Told(p, q)
    middle = p * 2

    def inner(_: Tensor) -> None:
        with torch.enable_grad():
            (q * 3).sum().backward()

    middle.register_hook(inner)
    middle.sum().backward()
    assert sorted(told.passes) == [(0,), (1,)]


def test_autograd_grad_writes_no_gradient_and_is_not_told() -> None:
    p, *_ = three()
    told = Told(p)
    torch.autograd.grad((p * 2).sum(), p)
    assert told.passes == []


def test_frozen_parameters_are_passed_over() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    told = Told(frozen, *three())
    assert not frozen._post_accumulate_grad_hooks
    told.tap.close()


def test_watching_twice_hooks_once() -> None:
    p, *_ = three()
    told = Told(p)
    told.tap.watch([(0, p)])
    assert len(p._post_accumulate_grad_hooks) == 1
    (p * 2).sum().backward()
    assert told.passes == [(0,)]


def test_close_removes_every_hook_and_the_users_own_survives() -> None:
    p, q, _ = three()
    mine: list[int] = []
    p.register_post_accumulate_grad_hook(lambda _: mine.append(1))
    told = Told(p, q)
    told.tap.close()
    told.tap.close()
    assert len(p._post_accumulate_grad_hooks) == 1
    assert not q._post_accumulate_grad_hooks
    (p * q).sum().backward()
    assert (told.passes, mine) == ([], [1])


def test_passes_are_counted_for_the_optimizer_whose_gradients_they_wrote() -> None:
    actor, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizers = {
        "actor": torch.optim.SGD(actor.parameters(), lr=0.1),
        "critic": torch.optim.SGD(critic.parameters(), lr=0.1),
    }
    with gradwatch.track(optimizers, {"a": actor, "c": critic}) as watch:
        for _ in range(3):
            critic(torch.ones(2)).sum().backward()
        optimizers["critic"].step()
        critic(actor(torch.ones(2))).sum().backward()
        optimizers["actor"].step()
        optimizers["critic"].step()
        optimizers["critic"].step()
    assert [(r.optimizer, r.backward_passes) for r in watch.history] == [
        ("critic", 3),
        ("actor", 1),
        ("critic", 1),
        ("critic", 0),
    ]


def test_accumulation_is_measured_at_its_end() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(4):
            model(torch.ones(3)).sum().backward()
        optimizer.step()
    record = watch["optimizer"]
    assert (record.norm_before, record.norm_after, record.backward_passes) == pytest.approx((8.0, 8.0, 4))


def test_a_backward_in_another_thread_is_told() -> None:
    p, *_ = three()
    told = Told(p)
    thread = threading.Thread(target=lambda: (p * 2).sum().backward())
    thread.start()
    thread.join()
    assert told.passes == [(0,)]
