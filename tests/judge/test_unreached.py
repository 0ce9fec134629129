"""A parameter that never has a gradient inside a module that learns."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.blocks import Block, StepRow
from gradwatch.judge.judge import Judge
from gradwatch.records import Alert
from gradwatch.rules import Zero
from tests.blocks import facts_of, judged_alike, layout_of
from tests.loops.models import loss_of

NAMES = ("a.weight", "a.bias", "b.weight", "b.extra", "b.bias")


def steps(missing: Iterable[Iterable[str]], frozen: tuple[str, ...] = ()) -> list[Block]:
    """Blocks of eight steps in which these are missing; whatever repeats is one object, as in a ledger."""
    layout = layout_of(NAMES, ("a", "b"))
    facts = {gone: facts_of(layout, missing=gone, unwritten=gone, frozen=frozen) for gone in map(tuple, missing)}
    rows = [StepRow(n, float(n), facts[tuple(gone)]) for n, gone in enumerate(missing, 1)]
    norms = np.ones((len(rows), len(NAMES)))
    return [
        Block(layout, rows[at : at + 8], norms[at : at + 8], norms[at : at + 8]) for at in range(0, len(rows), 8)
    ]


def fired(blocks: Iterable[Block]) -> list[Alert]:
    return [a for a in judged_alike(blocks) if a.state == "firing" and a.rule == "zero"]


def test_it_is_named_and_its_module_is_where() -> None:
    (alert,) = fired(steps([["b.extra"]] * 20))
    assert (alert.module, alert.step, alert.severity) == ("b", 10, "warning")
    assert "the gradient of b.extra is missing" in alert.message


def test_several_of_one_module_are_told_together() -> None:
    (alert,) = fired(steps([["b.extra", "b.bias"]] * 20))
    assert "b.extra, b.bias" in alert.message


def test_a_module_without_any_is_told_as_a_module() -> None:
    (warning, critical) = fired(steps([["a.weight", "a.bias"]] * 20))
    assert {warning.module, critical.module} == {"a"}
    assert "the gradient of a is missing" in warning.message


def test_modules_that_are_told_of_as_one_are_not_told_of_beside_it() -> None:
    layout = layout_of(("h.0.weight", "h.0.bias", "h.1.weight", "head.weight"), ("h", "head"))
    facts = facts_of(layout, missing=("h.0.weight", "h.0.bias", "h.1.weight"))
    rows = [StepRow(n, float(n), facts) for n in range(1, 20)]
    norms = np.ones((len(rows), 4))
    assert {alert.module for alert in fired([Block(layout, rows, norms, norms)])} == {"h"}


def test_what_requires_none_was_meant() -> None:
    assert fired(steps([["b.weight"]] * 20, frozen=("b.weight",))) == []


def test_a_few_steps_are_not_enough() -> None:
    assert fired(steps([["b.extra"]] * 9 + [[]] * 8)) == []


def test_parameters_that_are_drawn_are_given_time() -> None:
    """One of three a step, as experts of one list: the longest silence of a hundred steps is longer than ten."""
    draw = random.Random(0)
    three = ["b.weight", "b.extra", "b.bias"]
    drawn = [sorted(set(three) - {draw.choice(three)}) for _ in range(300)]
    silences = "".join("-" if "b.extra" in gone else "+" for gone in drawn).split("+")
    assert max(map(len, silences)) > 10
    assert fired(steps(drawn)) == []


def test_one_that_stops_being_drawn_is_told() -> None:
    draw = random.Random(0)
    drawn = [[draw.choice(["b.weight", "b.extra"])] for _ in range(100)]
    (alert,) = fired(steps([*drawn, *[["b.extra"]] * 100]))
    assert "b.extra" in alert.message
    assert alert.step > 110


def test_memory_goes_on_in_a_resumed_run() -> None:
    blocks = steps([["b.extra"]] * 16)
    first, second = Judge([Zero()]), Judge([Zero()])
    assert first.judge_block(blocks[0]) == []
    second.load_state_dict(first.state_dict())
    assert [alert.step for alert in second.judge_block(blocks[1])] == [10]


class Adapter(nn.Linear):
    """An adapter's matrix that somebody has forgotten to multiply by."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.scale = nn.Parameter(torch.ones(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


def test_in_a_training_loop_with_its_cause() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Adapter(), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(40):
            optimizer.zero_grad()
            loss_of(model, inputs=3).backward()
            optimizer.step()
    firing, explained = watch.alerts
    assert (firing.rule, firing.module, firing.step, explained.module) == ("zero", "0", 10, "0")
    assert explained.cause is not None
    assert (explained.cause.kind, explained.cause.where) == ("unused", "0.scale")
