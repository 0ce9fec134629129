"""Steps and models that torch.compile has been through. (The backend "eager" needs no C++ compiler.)"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import CodeType

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gradwatch
from gradwatch.measure import events, pure
from gradwatch.measure.ledger import Ledger
from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import usual_steps

# Torch warns of torch's own code: when it first loads its compiler, and when it compiles a backward.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    # As torch 2.6 says of the hooks that it moves about for compiled autograd.
    pytest.mark.filterwarnings("ignore:Trying to prepend a node to itself:UserWarning"),
]


@pytest.mark.parametrize("when", ["before tracking", "while tracking"])
@conformance
def test_a_compiled_step(run: Run, when: str) -> None:
    torch._dynamo.reset()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    compiled = torch.compile(optimizer.step, backend="eager")
    if when == "before tracking":
        clipped_before(model, optimizer, compiled)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, step=compiled)
    torch._dynamo.reset()


def clipped_before(model: nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[], object]) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model).backward()
        step()


@conformance
def test_a_compiled_model(run: Run) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    compiled = torch.compile(model, backend="eager")
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(compiled).backward()
            run.before()
            norm = clip_grad_norm_(compiled.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()
    torch._dynamo.reset()


@conformance
def test_a_compiled_backward(run: Run) -> None:
    """Under compiled autograd no callback can be queued and no hook of ours may be traced."""
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    compiler = torch.compile(backend="eager")
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss = loss_of(model)
            with torch._dynamo.compiled_autograd._enable(compiler):
                loss.backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()
    torch._dynamo.reset()


@pytest.mark.parametrize("when", ["before tracking", "while tracking"])
@conformance
def test_a_whole_step_that_is_compiled(run: Run, when: str) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    tells = False

    @torch.compiler.disable
    def complete() -> None:
        if tells:
            run.before()

    @torch.compiler.disable
    def final(norm: torch.Tensor) -> None:
        if tells:
            run.after("optimizer", Clip(1.0, norm))

    @torch.compile(backend="eager")
    def step(data: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(data).square().mean().backward()
        complete()
        final(clip_grad_norm_(model.parameters(), 1.0))
        optimizer.step()

    if when == "before tracking":
        step(torch.randn(6, 4))
    with run.track(optimizer, model):
        tells = True
        for _ in range(6):
            step(torch.randn(6, 4))
        assert _compiled(_gradwatch_measures()) == []
    torch._dynamo.reset()


@pytest.mark.parametrize("tracked", [False, True])
def test_what_the_engine_calls_within_a_compiled_step_is_compiled_as_ever(tracked: bool) -> None:
    torch._dynamo.reset()
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def halved(parameter: torch.Tensor) -> None:
        parameter.grad.mul_(0.5)

    model.weight.register_post_accumulate_grad_hook(halved)

    @torch.compile(backend="eager")
    def step(data: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()

    with gradwatch.track(optimizer, model) if tracked else nullcontext():
        for _ in range(3):
            step(torch.randn(6, 4))
        assert _compiled([halved.__code__]) == ["halved"]
    torch._dynamo.reset()


def _gradwatch_measures() -> list[CodeType]:
    """What runs when a pass begins and ends."""
    return [event.__code__ for event in (events.beginning, events.ended, pure.look, pure.norms, Ledger.note)]


def _compiled(codes: list[CodeType]) -> list[str]:
    """Those of which the compiler has made something: numpy's arrays are tensors then, and what is noted is lost."""
    entries = torch._C._dynamo.eval_frame._debug_get_cache_entry_list
    return [code.co_name for code in codes if entries(code)]
