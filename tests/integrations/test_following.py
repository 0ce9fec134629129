"""A callback refuses an argument when it is made, not when training has begun."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.errors import ArgumentError
from gradwatch.integrations.following import Following


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"sink": 1},
            "A Callback got the argument 'sink', but those of gradwatch.track were expected: give one of",
        ),
        ({"optimizers": 1}, "A Callback got the argument 'optimizers'"),
        ({"guard": "x"}, "guard is 'x'"),
        ({"guard": "skip", "every": 2}, "every is 2"),
        ({"sinks": gradwatch.sinks.Memory()}, "put it in a list"),
        ({"sinks": ["run.jsonl"]}, "'run.jsonl' has no write"),
        ({"rules": [3]}, "The rule 3"),
        ({"history": -1}, "history is -1"),
        ({"modules": 3}, "The modules are of type int"),
    ],
)
def test_a_bad_argument_is_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(says)):
        Following(options)


def test_what_can_be_read_once_is_there_for_the_next_training() -> None:
    sink, model = gradwatch.sinks.Memory(), nn.Linear(2, 2)
    following = Following({"sinks": iter([sink]), "rules": iter(gradwatch.default_rules())})
    for _ in range(2):
        optimizer = torch.optim.SGD(model.parameters())
        following.begin({"optimizer": optimizer}, model)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        following.end()
    assert [record.step for record in sink.records] == [1, 1]
