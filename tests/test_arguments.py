"""What ``track`` refuses, and that it says so in one sentence."""

from __future__ import annotations

import copy
import os
import platform
import re
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.arguments import checked_guard
from gradwatch.errors import ArgumentError, GradwatchError

MODEL, STRANGER = nn.Linear(2, 2), nn.Linear(2, 2)
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=0.1)


class HalfASink:
    def write(self, records: object, alerts: object) -> None: ...


class Own:
    id, severity, fires_after, clears_after = "own", "warning", 1, 1

    def __init__(self, **others: Any) -> None:
        self.__dict__.update(others)

    def look(self, record: object) -> None: ...


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no optimizer": ({"optimizers": {}}, "needs at least one"),
    "None": ({"optimizers": None}, "NoneType"),
    "a model": ({"optimizers": MODEL}, "Linear"),
    "the model first": ({"optimizers": MODEL, "modules": OPTIMIZER}, "as in track(optimizer, model)."),
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
    "a lone module that no optimizer holds": ({"modules": STRANGER}, "the module:"),
    "a module that no optimizer holds": ({"modules": {"m": MODEL, "other": STRANGER}}, "'other'"),
    "a copy of what is trained": (
        {"modules": copy.deepcopy(MODEL)},
        "may be a copy of what is trained, or made anew",
    ),
    "a module of other shapes": (
        {"modules": {"m": nn.Linear(3, 3)}},
        "'m': see that its optimizer was built from",
    ),
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
    "a sink's class": (
        {"sinks": [gradwatch.sinks.Console]},
        "an instance of a sink, such as gradwatch.sinks.Console().",
    ),
    "the id of a rule": ({"rules": ["zero"]}, "an instance of a rule, such as gradwatch.rules.Zero()."),
    "a rule of the id of another": (
        {"rules": [*gradwatch.default_rules(), Own(id="zero")]},
        "the id 'zero': give",
    ),
    "a rule of an id that is no name": ({"rules": [Own(id=3)]}, "id is 3"),
    "a rule of a severity of its own": ({"rules": [Own(severity="fatal")]}, "is 'fatal', but \"warning\" or"),
    "a rule with several of its own": ({"rules": [Own(severities=("warning", "bad"))]}, "is 'bad', but"),
    "a rule whose severities are one": ({"rules": [Own(severities="critical")]}, "'own' are 'critical'"),
    "a rule that fires before it finds": ({"rules": [Own(fires_after=0)]}, "fires_after of the rule 'own' is 0"),
    "a rule that never clears": ({"rules": [Own(clears_after=None)]}, "clears_after of the rule 'own' is None"),
    "on_alert is no function": ({"on_alert": 7}, "on_alert is 7"),
    "depth=0": ({"depth": 0}, "depth is 0"),
    "depth=-1": ({"depth": -1}, "depth is -1"),
    "depth=2.0": ({"depth": 2.0}, "depth is 2.0"),
    "depth=True": ({"depth": True}, "depth is True"),
    "a depth in words": ({"depth": "2"}, "depth is '2'"),
    "a run without a name": ({"run": ""}, "run is ''"),
    "a run's name is a number": ({"run": 7}, "run is 7"),
    "a run's name of two lines": ({"run": "a\nb"}, "run is 'a"),
    "a run's name that colours a terminal": ({"run": "\x1b[31m"}, "run is '"),
    "a guard that is none": ({"guard": "stop"}, "guard is 'stop'"),
    "a guard's class": ({"guard": gradwatch.Guard}, "guard is <class"),
    "guard=True": ({"guard": True}, "guard is True"),
    "a guard that looks at each third step": ({"guard": gradwatch.Guard("skip"), "every": 3}, "every is 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str) -> None:
    arguments, says = REFUSED[name]
    with pytest.raises(ArgumentError, match=re.escape(says)) as caught:
        gradwatch.track(**{"optimizers": OPTIMIZER, **arguments})
    message = str(caught.value)
    assert "\n" not in message
    assert message[0].isupper() or message.startswith(
        ("every", "history", "on_alert", "track", "depth", "run", "guard")
    )
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
        {"optimizers": {"m": OPTIMIZER}, "modules": {"m": MODEL}},
        {"modules": MODEL, "depth": 3, "run": "the seed's agent, für 3 Läufe"},
        {"guard": "raise"},
        {"guard": gradwatch.Guard("skip", explosion="skip", after=3)},
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


def test_an_optimizer_and_a_module_may_bear_one_name() -> None:
    with gradwatch.track({"x": OPTIMIZER}, {"x": MODEL}) as watch:
        assert list(watch.last) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("stop",), "nonfinite is 'stop'"),
        ((None,), "nonfinite is None"),
        (("skip", "stop"), "explosion is 'stop'"),
        (("skip", False), "explosion is False"),
        (("raise", None, 0), "after is 0"),
        (("raise", None, True), "after is True"),
        (("raise", None, 1.0), "after is 1.0"),
    ],
)
def test_a_guard_that_cannot_be_meant(arguments: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(says)) as caught:
        gradwatch.Guard(*arguments)
    assert str(caught.value).endswith(" was expected.")


def test_a_word_stands_for_a_guard() -> None:
    assert checked_guard("skip", 1) == gradwatch.Guard("skip") == gradwatch.Guard("skip", None, 1)
    assert checked_guard(None, 3) is None


def test_a_module_of_which_several_optimizers_hold_parts() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    optimizers = {n: torch.optim.SGD(model[i].parameters(), lr=0.1) for i, n in enumerate(("low", "high"))}
    with gradwatch.track(optimizers, {"net": model}) as watch:
        model(torch.ones(1, 2)).sum().backward()
        for optimizer in optimizers.values():
            optimizer.step()
    for name in optimizers:
        record = watch[name]
        assert record.modules["net"].norm_before == record.norm_before > 0.0
        assert set(record.left_out["net"]) == {"net.2.weight", "net.2.bias"}


def test_the_runs_name() -> None:
    memory = Told()
    with gradwatch.track(OPTIMIZER, run="one", sinks=[memory]):
        pass
    with gradwatch.track(OPTIMIZER, sinks=[memory]):
        pass
    assert memory.runs[0] == "one"
    assert memory.runs[1].startswith(f"{platform.node()}-")
    assert memory.runs[1].endswith(f"-{os.getpid()}")


class Told(HalfASink):
    """Remembers the name of each run."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def open(self, run: Any, health: object) -> None:
        self.runs.append(run.run)

    def close(self) -> None: ...
