"""Who wrote what a step consumes, and whether somebody had used it: by whole loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gradwatch
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
