"""Optimizers of the user's own: nested, wrapped, delegating."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import usual_steps


class Decayed(torch.optim.Adam):
    """Calls ``super().step()`` after its own business."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.999)
        return super().step(closure)


@conformance
def test_super_step(run: Run) -> None:
    model = mlp()
    optimizer = Decayed(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer)


class Changing(torch.optim.SGD):
    """Changes the gradients inside its step, before it hands them on."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.grad.mul_(0.5)
        return super().step(closure)


@conformance
def test_a_step_that_changes_the_gradients_first(run: Run) -> None:
    """What the optimizer is given is what it consumes: its own arithmetic is its own, as weight decay is."""
    model = mlp()
    optimizer = Changing(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer)


class Sign(torch.optim.Optimizer):
    """Written from nothing, without torch's helpers."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad.sign(), alpha=-group["lr"])


@conformance
def test_an_optimizer_from_nothing(run: Run) -> None:
    model = mlp()
    optimizer = Sign(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer)


class Wrapping(torch.optim.Optimizer):
    """An Optimizer around another, whose groups it shares."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__(inner.param_groups, {})
        self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


@pytest.mark.parametrize("tracked", ["outer", "inner", "both"])
@conformance
def test_an_optimizer_around_another(run: Run, tracked: str) -> None:
    model = mlp()
    inner = torch.optim.Adam(model.parameters(), lr=0.01)
    outer = Wrapping(inner)
    names = {"outer": outer, "inner": inner}
    # The inner step ends first, so its record comes first.
    chosen = ["inner", "outer"] if tracked == "both" else [tracked]
    with run.track({name: names[name] for name in chosen}, model):
        for _ in range(6):
            outer.zero_grad()
            loss_of(model).backward()
            for name in chosen:
                run.before(name)
            norm = clip_grad_norm_(model.parameters(), 1.0)
            for name in chosen:
                run.after(name, Clip(1.0, norm))
            outer.step()
    run.leave(outer=outer, inner=inner)


class Delegating(torch.optim.Optimizer):
    """An Optimizer by name only, as Accelerate's: it never called ``Optimizer.__init__`` and hands all on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.optimizer.state

    @property
    def param_groups(self) -> Any:  # type: ignore[override]
        return self.optimizer.param_groups

    @property
    def defaults(self) -> Any:  # type: ignore[override]
        return self.optimizer.defaults

    def add_param_group(self, group: Any) -> None:
        self.optimizer.add_param_group(group)

    def state_dict(self) -> Any:
        return self.optimizer.state_dict()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)


@pytest.mark.parametrize("depth", [1, 2])
@conformance
def test_an_optimizer_that_hands_everything_on(run: Run, depth: int) -> None:
    model = mlp()
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(depth):
        optimizer = Delegating(optimizer)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer)


class Lookahead:
    """Zhang et al., 2019, as most people write it: no Optimizer itself."""

    def __init__(self, optimizer: torch.optim.Optimizer, k: int = 2, alpha: float = 0.5) -> None:
        self.optimizer, self.k, self.alpha, self.count = optimizer, k, alpha, 0
        self.param_groups, self.state = optimizer.param_groups, defaultdict(dict)
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.optimizer.step(closure)
        self.count += 1
        if self.count % self.k == 0:
            for group, slow in zip(self.param_groups, self.slow, strict=True):
                for parameter, old in zip(group["params"], slow, strict=True):
                    old.add_(parameter - old, alpha=self.alpha)
                    parameter.copy_(old)
        return loss


@conformance
def test_lookahead(run: Run) -> None:
    model = mlp()
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    lookahead = Lookahead(inner)
    with run.track(inner, model):
        usual_steps(run, model, lookahead)
    run.leave(slow=lookahead.slow)


@conformance
def test_a_step_bound_before_tracking(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    step = optimizer.step
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, step=step)


@conformance
def test_a_step_called_through_its_class(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, step=lambda: torch.optim.Adam.step(optimizer))


@conformance
def test_a_step_that_the_user_replaced(run: Run) -> None:
    """As warm-up wrappers and profilers do it, on the instance."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    original, calls = optimizer.step, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    optimizer.step = counted  # type: ignore[method-assign]
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer)
    assert len(calls) == 6
