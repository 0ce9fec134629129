"""Who wrote what a step consumes, and whether somebody had used it: by whole loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode

import gradwatch
from gradwatch.measure import kernel
from gradwatch.records import StepRecord


class Pair:
    """An actor whose loss runs through a critic, each with an optimizer of its own."""

    def __init__(self, kind: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, **options: Any) -> None:
        torch.manual_seed(0)
        self.actor, self.critic = nn.Linear(3, 2), nn.Linear(2, 1)
        self.optimizers = {
            name: kind(module.parameters(), lr=0.01, **options)
            for name, module in (("actor", self.actor), ("critic", self.critic))
        }

    def actor_loss(self) -> None:
        self.critic(self.actor(torch.randn(4, 3))).mean().backward()

    def critic_loss(self) -> None:
        self.critic(torch.randn(4, 2)).square().mean().backward()

    def track(self) -> gradwatch.Watch:
        return gradwatch.track(self.optimizers, {"a": self.actor, "c": self.critic})


KINDS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}),
    "weight decay": (torch.optim.SGD, {"weight_decay": 0.1, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "fused": (torch.optim.Adam, {"fused": True}),
    "maximize": (torch.optim.AdamW, {"maximize": True}),
}


def of(watch: gradwatch.Watch, optimizer: str) -> list[StepRecord]:
    return [record for record in watch.history if record.optimizer == optimizer]


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_loss_that_stays_in_the_critic_is_leaked(kind: str) -> None:
    pair = Pair(KINDS[kind][0], **KINDS[kind][1])
    with pair.track() as watch:
        for _ in range(3):
            pair.optimizers["actor"].zero_grad()
            pair.actor_loss()
            pair.optimizers["actor"].step()
            pair.critic_loss()
            clip_grad_norm_(pair.critic.parameters(), 10.0)
            pair.optimizers["critic"].step()
            pair.optimizers["critic"].zero_grad()
    assert [r.leaked for r in of(watch, "critic")] == [("c.weight", "c.bias")] * 3
    assert [r.leaked for r in of(watch, "actor")] == [()] * 3
    assert all(r.stale == r.unwritten == () for r in watch.history)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_zeroed_before_the_critics_loss_it_is_not(kind: str, set_to_none: bool) -> None:
    pair = Pair(KINDS[kind][0], **KINDS[kind][1])
    with pair.track() as watch:
        for _ in range(3):
            for optimizer, loss in (("actor", pair.actor_loss), ("critic", pair.critic_loss)):
                pair.optimizers[optimizer].zero_grad(set_to_none=set_to_none)
                loss()
                pair.optimizers[optimizer].step()
    assert all(r.leaked == r.stale == r.unwritten == () for r in watch.history)


@pytest.mark.parametrize("kind", KINDS)
def test_never_zeroed_is_leaked_from_the_second_step_on(kind: str) -> None:
    pair = Pair(KINDS[kind][0], **KINDS[kind][1])
    with pair.track() as watch:
        for _ in range(3):
            pair.critic_loss()
            pair.optimizers["critic"].step()
    assert [bool(r.leaked) for r in of(watch, "critic")] == [False, True, True]


def test_accumulation_and_a_loss_of_both_is_not() -> None:
    pair = Pair()
    with pair.track() as watch:
        for _ in range(3):
            for _ in range(2):
                pair.actor_loss()
            for optimizer in pair.optimizers.values():
                optimizer.step()
            for optimizer in pair.optimizers.values():
                optimizer.zero_grad()
    assert all(r.leaked == r.stale == () for r in watch.history)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_accumulates_over_the_steps_of_another_on_the_same_loss_has_no_leak(kind: str) -> None:
    pair = Pair(KINDS[kind][0], **KINDS[kind][1])
    with pair.track() as watch:
        for step in range(1, 7):
            pair.optimizers["actor"].zero_grad()
            pair.actor_loss()
            pair.optimizers["actor"].step()
            if step % 3 == 0:
                pair.optimizers["critic"].step()
                pair.optimizers["critic"].zero_grad()
    assert [r.backward_passes for r in of(watch, "critic")] == [3, 3]
    assert all(r.leaked == r.stale == () for r in watch.history)


def test_another_loss_after_those_that_were_accumulated_leaks() -> None:
    pair = Pair()
    with pair.track() as watch:
        for _ in range(2):
            for _ in range(2):
                pair.actor_loss()
                pair.optimizers["actor"].step()
                pair.optimizers["actor"].zero_grad()
            pair.critic_loss()
            pair.optimizers["critic"].step()
            pair.optimizers["critic"].zero_grad()
    assert [len(r.leaked) for r in of(watch, "critic")] == [2, 2]
    assert all(r.leaked == () for r in of(watch, "actor"))


@pytest.mark.parametrize("zeroed", ["after", "never"])
def test_losses_of_a_gan_that_write_the_same_parameters_leak_into_each_other(zeroed: str) -> None:
    pair = Pair()

    def then_step(optimizer: str) -> None:
        pair.optimizers[optimizer].step()
        if zeroed == "after":
            pair.optimizers[optimizer].zero_grad()

    with pair.track() as watch:
        for _ in range(3):
            # Nothing is detached: the critic's loss writes the actor as well.
            pair.critic(pair.actor(torch.randn(4, 3))).square().mean().backward()
            then_step("critic")
            pair.critic(pair.actor(torch.randn(4, 3))).square().mean().neg().backward()
            then_step("actor")
    assert [len(r.leaked) for r in of(watch, "actor")] == [2, 2, 2]
    assert [len(r.leaked) for r in of(watch, "critic")] == [0, 2, 2]


class Called(TorchDispatchMode):
    """Notes each operation of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.__name__.split(".")[0])
        return function(*args, **kwargs or {})


def test_a_gradient_that_was_used_is_not_read_whole_to_see_that_it_is_not_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    looked_at: list[int] = []
    zeros = kernel.zeros

    def counting(gradients: list[torch.Tensor | None], places: tuple[int, ...]) -> tuple[int, ...]:
        looked_at.extend(places)
        return zeros(gradients, places)

    monkeypatch.setattr(kernel, "zeros", counting)
    with pair.track() as watch, Called() as called:
        for _ in range(3):
            for optimizer, loss in (("actor", pair.actor_loss), ("critic", pair.critic_loss)):
                pair.optimizers[optimizer].zero_grad()
                loss()
                pair.optimizers[optimizer].step()
    assert len(watch.history) == 6
    assert looked_at
    assert not {"any", "linalg_vector_norm"} & set(called.names)


@pytest.mark.parametrize("kind", KINDS)
def test_zeroed_by_way_of_data_it_has_not_leaked(kind: str) -> None:
    pair = Pair(KINDS[kind][0], **KINDS[kind][1])
    with pair.track() as watch:
        for _ in range(3):
            for optimizer, loss in (("actor", pair.actor_loss), ("critic", pair.critic_loss)):
                for parameter in (*pair.actor.parameters(), *pair.critic.parameters()):
                    if parameter.grad is not None:
                        parameter.grad.data.zero_()
                loss()
                pair.optimizers[optimizer].step()
    assert len(watch.history) == 6
    assert all(r.leaked == () for r in watch.history)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_step_on_the_same_gradients_is_stale(kind: str) -> None:
    pair = Pair(KINDS[kind][0], **KINDS[kind][1])
    with pair.track() as watch:
        pair.critic_loss()
        for _ in range(3):
            pair.optimizers["critic"].step()
    assert [bool(r.stale) for r in watch.history] == [False, True, True]
    assert [bool(r.unwritten) for r in watch.history] == [False, True, True]


def test_gradients_set_by_hand_are_unwritten_and_not_stale() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    kept = torch.zeros(2)
    with gradwatch.track(optimizer) as watch:
        for step in range(4):
            weight.grad = torch.ones(2) if step < 2 else kept.add_(1.0)
            optimizer.step()
    assert [r.stale for r in watch.history] == [()] * 4
    assert [r.unwritten for r in watch.history] == [("group0.param0",)] * 4


def test_frozen_parameters_are_named() -> None:
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, {"m": model}) as watch:
        model(torch.ones(2)).sum().backward()
        optimizer.step()
    assert watch["optimizer"].frozen == ("m.bias",)
    assert watch["optimizer"].missing == ("m.bias",)


def test_a_missing_gradient_and_one_of_zero_are_neither_stale_nor_leaked() -> None:
    pair = Pair()
    with pair.track() as watch:
        pair.critic_loss()
        pair.optimizers["critic"].step()
        pair.optimizers["critic"].zero_grad(set_to_none=False)
        pair.optimizers["critic"].step()
        pair.optimizers["critic"].zero_grad(set_to_none=True)
        pair.optimizers["critic"].step()
    assert all(r.stale == r.leaked == () for r in watch.history)
    assert watch["critic"].unwritten == watch["critic"].missing == ("c.weight", "c.bias")


# Where clip calls fall between the passes


class One:
    """A model, its optimizer, and what the record of its last step says of clipping."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)

    def backward(self) -> None:
        self.model(torch.randn(4, 3)).square().mean().backward()

    def clip(self, limit: float = 1e-3) -> None:
        clip_grad_norm_(self.model.parameters(), limit)

    def zero(self, to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none=to_none)

    def run(self, *events: Callable[[], None], steps: int = 3) -> list[tuple[int, int, int]]:
        """For each step: how many gradients a clip call missed, came between for, and how many were stale."""
        with gradwatch.track(self.optimizer, self.model, rules=[]) as watch:
            for _ in range(steps):
                for event in events:
                    event()
        return [(len(r.missed_by_clip), len(r.clipped_between), len(r.stale)) for r in watch.history]


def test_a_clip_call_after_the_last_backward_misses_nothing() -> None:
    one = One()
    assert one.run(one.zero, one.backward, one.clip, one.optimizer.step) == [(0, 0, 0)] * 3
    assert one.run(one.zero, one.backward, one.backward, one.clip, one.clip, one.optimizer.step) == [(0, 0, 0)] * 3


@pytest.mark.parametrize("to_none", [True, False])
def test_a_clip_call_before_the_backward_misses_all(to_none: bool) -> None:
    one = One()
    assert one.run(lambda: one.zero(to_none), one.clip, one.backward, one.optimizer.step) == [(4, 0, 0)] * 3


def test_a_clip_call_after_the_step_misses_the_next() -> None:
    one = One()
    assert one.run(one.zero, one.backward, one.optimizer.step, one.clip) == [(0, 0, 0), (4, 0, 0), (4, 0, 0)]


def test_a_clip_call_for_each_micro_batch_comes_between() -> None:
    one = One()
    micro = [one.backward, one.clip]
    assert one.run(one.zero, *micro, *micro, one.optimizer.step) == [(0, 4, 0)] * 3
    assert one.run(one.zero, *micro, one.backward, one.optimizer.step) == [(4, 4, 0)] * 3


@pytest.mark.parametrize("to_none", [True, False])
def test_a_clip_call_for_a_step_that_was_left_out_comes_between_nothing(to_none: bool) -> None:
    one = One()
    left_out = [lambda: one.zero(to_none), one.backward, one.clip]
    assert one.run(*left_out, *left_out, one.optimizer.step) == [(0, 0, 0)] * 3


def test_a_clip_call_makes_an_old_gradient_no_newer() -> None:
    one = One()
    one.backward()
    assert one.run(one.clip, one.optimizer.step) == [(0, 0, 0), (0, 0, 4), (0, 0, 4)]


def test_a_gradient_that_is_never_zeroed_has_leaked_and_was_not_clipped_between() -> None:
    one = One()
    with gradwatch.track(one.optimizer, one.model, rules=[]) as watch:
        for _ in range(3):
            one.backward()
            one.clip()
            one.optimizer.step()
    assert [(len(r.leaked), len(r.clipped_between)) for r in watch.history] == [(0, 0), (4, 0), (4, 0)]


def test_a_gradient_that_was_zeroed_before_a_clip_call_has_not_leaked() -> None:
    one = One()
    with gradwatch.track(one.optimizer, one.model, rules=[]) as watch:
        for _ in range(3):
            one.clip()
            one.backward()
            one.optimizer.step()
            one.zero(to_none=False)
    assert [len(r.leaked) for r in watch.history] == [0, 0, 0]


def test_a_closure_with_a_clip_call_is_in_order() -> None:
    one = One()
    optimizer = torch.optim.LBFGS(one.model.parameters(), max_iter=4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = one.model(torch.ones(4, 3)).square().mean()
        loss.backward()
        one.clip(0.1)
        return loss

    with gradwatch.track(optimizer, one.model, rules=[]) as watch:
        for _ in range(3):
            optimizer.step(closure)
    assert [(len(r.missed_by_clip), len(r.clipped_between)) for r in watch.history] == [(0, 0)] * 3


def test_a_clip_call_that_is_given_nothing_is_told_to_those_who_wait_for_their_step() -> None:
    one = One()
    spent = iter(())
    with gradwatch.track(one.optimizer, one.model, rules=[]) as watch:
        clip_grad_norm_(spent, 1.0)
        one.backward()
        clip_grad_norm_(spent, 1.0)
        clip_grad_norm_(nn.Linear(2, 2).parameters(), 1.0)
        one.optimizer.step()
    (record,) = watch.history
    assert [(c.norm_returned, c.scope_before, c.scope_after) for c in record.clips] == [(0.0, None, None)] * 2
    assert (record.max_norm, record.clipped) == (None, False)


def test_a_clip_call_on_others_gradients_is_not_told() -> None:
    one, other = One(), nn.Linear(2, 1)
    other(torch.ones(1, 2)).sum().backward()
    with gradwatch.track(one.optimizer, one.model, rules=[]) as watch:
        one.backward()
        clip_grad_norm_(other.parameters(), 1.0)
        one.optimizer.step()
    assert watch.last["optimizer"].clips == ()


@pytest.mark.parametrize("every", [1, 2])
def test_a_gradient_of_the_loops_own_at_an_old_address_is_not_stale(every: int) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model, every=every) as watch:
        for _ in range(100):
            optimizer.zero_grad()
            loss = model(torch.randn(2, 4)).square().mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            del gradients, gradient
            optimizer.step()
    assert {record.stale for record in watch.history} == {()}
    assert watch.alerts == []


def test_an_old_gradient_is_stale_though_others_were_added_meanwhile() -> None:
    one = One()
    with gradwatch.track(one.optimizer, one.model, rules=[]) as watch:
        one.backward()
        one.optimizer.step()
        one.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
        one.optimizer.step()
    assert set(watch["optimizer"].stale) == {name for name, _ in one.model.named_parameters()}


@pytest.mark.parametrize("layers", [2, 40])
def test_a_pass_of_others_is_no_event_of_gradients_that_it_has_not_written(layers: int) -> None:
    """Of 80 parameters some have no hook, and are compared at the end of each pass."""
    model, other = nn.Sequential(*(nn.Linear(2, 2) for _ in range(layers))), nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model, rules=[]) as watch:
        model(torch.ones(1, 2)).sum().backward()
        for parameter in model.parameters():
            parameter.grad.mul_(0.5)
        other(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    record = watch["optimizer"]
    assert record.norm_after == 0.5 * record.norm_before > 0.0
    assert record.backward_passes == 1


class DecayingInPlace(torch.optim.SGD):
    """Adds the decay to the gradients themselves, of weights alone, as many an optimizer of a paper does."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dim() > 1 and parameter.grad is not None:
                    parameter.grad.add_(parameter.detach(), alpha=0.1)
        super().step(closure)


def test_what_an_optimizer_has_changed_in_its_own_step_is_used_all_the_same() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = DecayingInPlace(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model, rules=[]) as watch:
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        optimizer.step()
    names = tuple(name for name, _ in model.named_parameters())
    assert [record.leaked for record in watch.history] == [(), names, names]
    assert [record.stale for record in watch.history] == [(), (), names]


def test_a_new_gradient_at_an_old_address_has_not_leaked() -> None:
    """A hook changes the gradient in place at every other step: its version is one above that of the step before."""
    one = One()
    halving = False

    def halve(parameter: torch.Tensor) -> None:
        if halving and parameter.grad is not None:
            parameter.grad.mul_(0.5)

    for parameter in one.model.parameters():
        parameter.register_post_accumulate_grad_hook(halve)
    with gradwatch.track(one.optimizer, one.model, rules=[]) as watch:
        for step in range(40):
            halving = step % 2 == 1
            one.zero(to_none=True)
            one.backward()
            one.optimizer.step()
    assert [record.leaked for record in watch.history] == [()] * 40


def test_of_several_clip_calls_those_are_forgotten_of_which_nothing_came() -> None:
    one = One()
    with gradwatch.track(one.optimizer, one.model, rules=[]) as watch:
        one.backward()
        one.clip(1.0)
        one.clip(2.0)
        one.zero()
        one.backward()
        clip_grad_norm_(one.model[0].parameters(), 3.0)
        one.clip(4.0)
        one.optimizer.step()
    assert [clip.limit for clip in watch["optimizer"].clips] == [3.0, 4.0]
    assert watch.health().internal_errors == 0


@pytest.mark.parametrize("again", ["before the next clip call", "after it"])
def test_the_optimizer_that_was_passed_over_learns_whose_gradients_were_clipped_instead(again: str) -> None:
    pair = Pair()
    with pair.track() as watch:
        for _ in range(3):
            pair.critic_loss()
            pair.optimizers["critic"].zero_grad()
            pair.actor_loss()
            clip_grad_norm_(pair.critic.parameters(), 1.0)
            pair.optimizers["actor"].step()
            for optimizer in pair.optimizers.values():
                optimizer.zero_grad()
            if again == "before the next clip call":
                pair.actor_loss()
                pair.optimizers["critic"].zero_grad()
            pair.critic_loss()
            clip_grad_norm_(pair.critic.parameters(), 1.0)
            pair.optimizers["critic"].step()
            pair.optimizers["critic"].zero_grad()
            pair.optimizers["actor"].zero_grad()
    assert [r.clipped_instead for r in of(watch, "actor")] == [None, "critic", "critic"]
    assert [r.clipped_instead for r in of(watch, "critic")] == [None] * 3


def test_losses_that_one_line_of_code_runs_are_told_apart_by_all_that_they_write() -> None:
    pair = Pair()
    losses = {
        "actor": lambda: pair.critic(pair.actor(torch.randn(4, 3))).mean(),
        "critic": lambda: pair.critic(torch.randn(4, 2)).square().mean(),
    }
    with pair.track() as watch:
        for _ in range(3):
            for name, loss in losses.items():
                loss().backward()
                pair.optimizers[name].step()
                pair.optimizers[name].zero_grad()
    assert [len(record.leaked) for record in of(watch, "critic")] == [2, 2, 2]
    assert [len(record.leaked) for record in of(watch, "actor")] == [0, 0, 0]
