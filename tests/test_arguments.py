"""What ``track`` refuses, and that it says so in one sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.errors import ArgumentError, GradwatchError

MODEL, STRANGER = nn.Linear(2, 2), nn.Linear(2, 2)
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=0.1)


class HalfASink:
    def write(self, records: object, alerts: object) -> None: ...


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no optimizer": ({"optimizers": {}}, "needs at least one"),
    "None": ({"optimizers": None}, "NoneType"),
    "a model": ({"optimizers": MODEL}, "Linear"),
    "an optimizer's class": ({"optimizers": torch.optim.SGD}, "torch.optim.Optimizer was expected"),
    "a list": ({"optimizers": [OPTIMIZER]}, "list"),
    "one of several is a model": ({"optimizers": {"a": OPTIMIZER, "b": MODEL}}, "'b'"),
    "the same optimizer twice": ({"optimizers": {"a": OPTIMIZER, "b": OPTIMIZER}}, "'a' and as 'b'"),
    "an optimizer's name is a number": ({"optimizers": {1: OPTIMIZER}}, "optimizers is 1"),
    "an optimizer's name is empty": ({"optimizers": {"": OPTIMIZER}}, "non-empty"),
    "modules of the wrong type": ({"modules": 3}, "int"),
    "a list of modules": ({"modules": [MODEL]}, "list"),
    "a module that is none": ({"modules": {"m": OPTIMIZER}}, "'m' is of type SGD"),
    "a module's name is a number": ({"modules": {2: MODEL}}, "modules is 2"),
    "a module's name is empty": ({"modules": {"": MODEL}}, "non-empty"),
    "a name used for both": ({"optimizers": {"x": OPTIMIZER}, "modules": {"x": MODEL}}, "used twice"),
    "a lone module that no optimizer holds": ({"modules": STRANGER}, "the module:"),
    "a module that no optimizer holds": ({"modules": {"m": MODEL, "other": STRANGER}}, "'other'"),
    "a module without parameters": ({"modules": {"m": nn.Tanh()}}, "'m'"),
    "every=0": ({"every": 0}, "every is 0"),
    "every=-1": ({"every": -1}, "every is -1"),
    "every=1.5": ({"every": 1.5}, "every is 1.5"),
    "every=True": ({"every": True}, "every is True"),
    "every=None": ({"every": None}, "every is None"),
    "history=-1": ({"history": -1}, "history is -1"),
    "history=None": ({"history": None}, "history is None"),
    "history=False": ({"history": False}, "history is False"),
    "a sink without close": ({"sinks": [HalfASink()]}, "close()"),
    "a sink that is a path": ({"sinks": ["runs/1"]}, "'runs/1'"),
    "on_alert is no function": ({"on_alert": 7}, "on_alert is 7"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str) -> None:
    arguments, says = REFUSED[name]
    with pytest.raises(ArgumentError, match=re.escape(says)) as caught:
        gradwatch.track(**{"optimizers": OPTIMIZER, **arguments})
    message = str(caught.value)
    assert "\n" not in message
    assert message[0].isupper() or message.startswith(("every", "history", "on_alert", "track"))
    assert message.endswith(".")
    assert not re.search(r"[.!?] [A-Z]", message)


def test_an_argument_error_is_a_value_error() -> None:
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(ArgumentError, GradwatchError)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"optimizers": {"a": OPTIMIZER}, "modules": {"m": MODEL}},
        {"modules": {"m": MODEL, "again": MODEL}},
        {"modules": nn.Sequential(MODEL, STRANGER)},
        {
            "every": 7,
            "history": 0,
            "sinks": iter([gradwatch.sinks.Memory()]),
            "on_alert": print,
            "rules": iter(()),
        },
    ],
)
def test_taken(arguments: dict[str, Any]) -> None:
    watch = gradwatch.track(**{"optimizers": OPTIMIZER, **arguments})
    assert isinstance(watch, gradwatch.Watch)
    assert not OPTIMIZER._optimizer_step_pre_hooks


class Wrapper:
    """As Accelerate wraps an optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


class WrappingOptimizer(torch.optim.Optimizer):
    """As Accelerate's, which is an optimizer itself and never calls its own constructor's parent."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)


@pytest.mark.parametrize("wrapper", [Wrapper, WrappingOptimizer])
def test_a_wrapped_optimizer_is_opened(wrapper: Any) -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(wrapper(optimizer), model) as watch:
        model(torch.tensor([4.0])).sum().backward()
        wrapper(optimizer).optimizer.step()
    assert watch["optimizer"].norm_after == 4.0


def test_an_optimizer_and_its_wrapper_are_the_same() -> None:
    with pytest.raises(ArgumentError, match="name it once"):
        gradwatch.track({"a": OPTIMIZER, "b": Wrapper(OPTIMIZER)})  # type: ignore[dict-item]
