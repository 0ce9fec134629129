"""The end of a backward pass is told once, with what it wrote, when the gradients are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradwatch
from gradwatch.taps import backwards
from gradwatch.taps.backwards import NO_PASS, Pass, activity, current_pass, passes
from gradwatch.taps.gradient_hooks import GradientHooks


class Told:
    """A listener that notes what it is told, and hears of passes while its test runs."""

    all: ClassVar[list[Told]] = []

    def __init__(
        self,
        *parameters: Tensor,
        accumulator: Callable[[Tensor], Tensor | None] = lambda parameter: parameter,
        group: Any = None,
    ) -> None:
        self.passes: list[frozenset[int]] = []
        self.numbers: list[int] = []
        self.wrote: list[object] = []
        self.began: list[bool] = []
        self.at_the_end: list[Callable[[], object]] = []
        self.group = self if group is None else group
        self.starts: list[tuple[Sequence[object], Sequence[object], bool]] = []
        self.ends = 0
        self.hooks = GradientHooks(self, accumulator)
        self.hooks.watch(parameters)
        Told.all.append(self)
        passes.listen(self)
        activity.keep(self)

    @property
    def compares(self) -> bool:
        return bool(self.hooks.unhooked)

    def beginning(self, alone: bool) -> None:
        self.began.append(alone)

    def ended(self, columns: frozenset[int], one: Pass) -> None:
        self.passes.append(columns)
        self.numbers.append(one.number)
        self.wrote.append(one.origin(self.group)[1])
        for see in self.at_the_end:
            see()

    def starting_from(
        self, roots: Sequence[object], gradients: Sequence[object], accumulates: bool
    ) -> Callable[[], None]:
        self.starts.append((tuple(roots), tuple(gradients), accumulates))

        def end() -> None:
            self.ends += 1

        return end

    def close(self) -> None:
        self.hooks.close()
        activity.forget(self)
        passes.stop_listening(self)


ENGINE = torch.autograd._engine_run_backward


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    while Told.all:
        Told.all.pop().close()
    assert torch.autograd._engine_run_backward is ENGINE
    assert (backwards._running, activity._left) == ({}, {})


def three() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2)) for _ in range(3)]


def failing(tensor: Tensor) -> Tensor:
    def fail(_: Tensor) -> None:
        raise ZeroDivisionError

    tensor.register_hook(fail)
    return tensor


def test_one_pass_is_told_once_with_what_it_wrote() -> None:
    p, q, r = three()
    told = Told(p, q, r)
    (p * r).sum().backward()
    assert [set(columns) for columns in told.passes] == [{0, 2}]
    (q * 2).sum().backward()
    assert told.passes[1:] == [{1}]
    assert len(set(told.numbers)) == 2


def test_columns_come_in_the_order_in_which_they_were_written() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    told = Told(first.weight, second.weight)
    second(first(torch.ones(2))).sum().backward()
    assert told.passes == [{0, 1}]


def test_the_gradients_are_there_when_it_is_told() -> None:
    p, q, _ = three()
    told = Told(p, q)
    seen: list[bool] = []
    told.at_the_end.append(lambda: seen.append(p.grad is not None and q.grad is not None))
    (p * q).sum().backward()
    assert seen == [True]


def test_what_others_do_when_a_gradient_is_there_is_done_when_it_is_told() -> None:
    """As a reduction over ranks does it, or a hook that clips."""
    p, *_ = three()
    told = Told(p)

    def halve(parameter: Tensor) -> None:
        parameter.grad.mul_(0.5)

    p.register_post_accumulate_grad_hook(halve)
    seen: list[list[float]] = []
    told.at_the_end.append(lambda: seen.append(p.grad.tolist()))
    (p * 4).sum().backward()
    assert seen == [[2.0, 2.0]]


def test_a_parameter_used_many_times_is_named_once() -> None:
    (p, *_) = three()
    told = Told(p)
    (p * p + p.exp() * p).sum().backward()
    assert told.passes == [{0}]


@pytest.mark.parametrize("call", [Tensor.backward, torch.autograd.backward])
def test_every_way_to_start_the_engine_is_seen(call: Callable[[Tensor], None]) -> None:
    p, *_ = three()
    told = Told(p)
    loss = (p * 2).sum()
    call(loss)
    assert told.passes == [{0}]
    ((roots, gradients, accumulates),) = told.starts
    assert (roots, [float(gradient) for gradient in gradients], accumulates) == ((loss,), [1.0], True)


def test_an_exception_in_backward_leaves_nothing_behind() -> None:
    p, q, _ = three()
    told = Told(p, q)
    with pytest.raises(ZeroDivisionError):
        (failing(p * 2) * q).sum().backward()
    assert current_pass() == NO_PASS
    told.passes.clear()
    (p * q).sum().backward()
    assert [set(columns) for columns in told.passes] == [{0, 1}]
    assert (len(told.starts), told.ends) == (2, 2)


def test_many_failed_passes_are_not_kept() -> None:
    p, q, _ = three()
    Told(p, q)
    for _ in range(3 * backwards._MOST_UNSEEN):
        with pytest.raises(ZeroDivisionError):
            (failing(p * 2) + q).sum().backward()
        with pytest.raises(ZeroDivisionError):
            unseen((failing(p * 2) + q).sum())
    assert len(backwards._unseen) <= backwards._MOST_UNSEEN
    backwards._unseen.clear()


def test_a_backward_inside_a_backward_is_a_part_of_it() -> None:
    p, q, _ = three()
    told = Told(p, q)
    middle = p * 2
    numbers: list[int] = []

    def inner(_: Tensor) -> None:
        with torch.enable_grad():
            numbers.append(current_pass())
            (q * 3).sum().backward()
            numbers.append(current_pass())

    middle.register_hook(inner)
    middle.sum().backward()
    assert told.passes == [{0, 1}]
    assert numbers == told.numbers * 2
    assert current_pass() == NO_PASS


def test_a_reentrant_checkpoint_is_a_part_of_its_pass() -> None:
    layer, head = nn.Linear(2, 2), nn.Linear(2, 1)
    told = Told(*layer.parameters(), *head.parameters())
    inputs = torch.ones(2, requires_grad=True)
    head(checkpoint(layer, inputs, use_reentrant=True)).sum().backward()
    assert [set(columns) for columns in told.passes] == [{0, 1, 2, 3}]


def test_autograd_grad_writes_no_gradient_and_is_not_told() -> None:
    p, *_ = three()
    told = Told(p)
    torch.autograd.grad((p * 2).sum(), p)
    assert told.passes == []
    # What looks for causes sees it all the same.
    assert ([accumulates for *_, accumulates in told.starts], told.ends) == ([False], 1)
    assert told.began == []


def test_frozen_parameters_are_passed_over_until_they_are_not() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    told = Told(frozen, *three())
    assert not frozen._post_accumulate_grad_hooks
    frozen.requires_grad_(True)
    told.hooks.renew()
    (frozen * 2).sum().backward()
    assert told.passes == [{0}]


def test_a_lazy_parameter_is_hooked_once_it_has_a_shape() -> None:
    layer = nn.LazyLinear(1, bias=False)
    told = Told(layer.weight)
    layer(torch.ones(1, 3))
    told.hooks.renew()
    layer(torch.ones(1, 3)).sum().backward()
    assert told.passes == [{0}]


def test_watching_again_hooks_once() -> None:
    p, q, _ = three()
    told = Told(p, q)
    told.hooks.watch([q])
    assert not p._post_accumulate_grad_hooks
    assert len(q._post_accumulate_grad_hooks) == 1
    (p * q).sum().backward()
    assert told.passes == [{0}]


def test_close_removes_every_hook_and_the_users_own_survives() -> None:
    p, q, _ = three()
    mine: list[int] = []
    p.register_post_accumulate_grad_hook(lambda _: mine.append(1))
    told = Told(p, q)
    told.close()
    told.close()
    assert len(p._post_accumulate_grad_hooks) == 1
    assert not q._post_accumulate_grad_hooks
    (p * q).sum().backward()
    assert (told.passes, mine) == ([], [1])


def test_who_has_a_parameter_without_a_hook_is_told_of_every_pass_to_compare() -> None:
    p, q, r = three()
    told = Told(p, q, accumulator=lambda parameter: None if parameter is p else parameter)
    assert told.hooks.unhooked == {0}
    assert not p._post_accumulate_grad_hooks
    (r * 2).sum().backward()
    (p * q).sum().backward()
    assert told.passes == [set(), {1}]


def test_a_gradient_may_come_by_way_of_another_tensor() -> None:
    flat, view = three()[:2]
    told = Told(view, accumulator=lambda _: flat)
    (flat * 2).sum().backward()
    assert told.passes == [{0}]
    assert not view._post_accumulate_grad_hooks


# Who hears that a pass begins


def test_a_listener_hears_that_passes_begin_until_none_has_written_it_for_a_while() -> None:
    p, q, _ = three()
    told = Told(p)
    for _ in range(40):
        (q * 2).sum().backward()
    assert len(told.began) == backwards._Activity.PASSES + 1
    assert (told.passes, told.starts[20:]) == ([], [])
    (p * 2).sum().backward()
    assert told.passes == [{0}]


def test_who_compares_hears_of_every_pass_however_many_others_there_were() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2 * GradientHooks.MOST)]
    other = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    with gradwatch.track(optimizer) as watch:
        for _ in range(2 * activity.PASSES):
            other.sum().backward()
        torch.stack(parameters).sum().backward()
        for parameter in parameters:  # clipped by hand, which no call tells of
            assert parameter.grad is not None
            parameter.grad.mul_(0.5)
        optimizer.step()
    assert watch.history[0].clip_ratio == 0.5


def test_listeners_of_one_group_look_at_a_pass_once() -> None:
    p, q, _ = three()
    one = Told(p)
    other = Told(q, group=one)
    (p * q).sum().backward()
    assert (len(one.starts), one.ends, other.starts) == (1, 1, [])
    assert (len(one.began), len(other.began)) == (1, 1)


def test_losses_of_a_group_are_told_apart_by_all_that_they_write() -> None:
    p, q, r = three()
    one, stranger = Told(p), Told(r)
    other = Told(q, group=one)
    for _ in range(2):
        (p * q).sum().backward()
    (p * q * r).sum().backward()
    (q * 2).sum().backward()
    both = one.wrote[0]
    assert one.wrote == [both] * 3
    assert other.wrote[:3] == [both] * 3
    assert other.wrote[3] != both
    assert stranger.wrote[0] != both


def test_a_pass_in_another_thread_is_not_heard_to_begin_and_is_told() -> None:
    p, *_ = three()
    told = Told(p)
    thread = threading.Thread(target=lambda: (p * 2).sum().backward())
    thread.start()
    thread.join()
    assert (told.passes, told.began) == ([{0}], [])


def test_two_passes_at_once_are_told_apart() -> None:
    p, q, r = three()
    told = Told(p, q, r)
    inside, go_on = threading.Event(), threading.Event()
    middle = p * 2

    def wait(_: Tensor) -> None:
        inside.set()
        go_on.wait(20)

    middle.register_hook(wait)
    thread = threading.Thread(target=lambda: (middle * q.detach()).sum().backward())
    thread.start()
    inside.wait(20)
    (r * 2).sum().backward()
    go_on.set()
    thread.join()
    assert told.passes == [{2}, {0}]
    assert told.began == [False]


def unseen(loss: Tensor) -> None:
    """A pass that is begun in a way that nobody sees."""
    gradients = (torch.ones_like(loss),)
    ENGINE((loss,), gradients, False, False, (), allow_unreachable=True, accumulate_grad=True)


def test_a_pass_that_was_not_seen_to_begin_is_told_when_it_ends() -> None:
    p, q, _ = three()
    told = Told(p, q)
    unseen((p * q).sum())
    unseen((p * 2).sum())
    assert [set(columns) for columns in told.passes] == [{0, 1}, {0}]
    assert told.began == []
    assert all(number >= 0 for number in told.numbers)


def test_outside_of_every_pass_there_is_none() -> None:
    assert current_pass() == NO_PASS


# From here on through track.


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
