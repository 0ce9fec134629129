"""Steps that evaluate the loss themselves. The record is of the first evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@conformance
def test_lbfgs(run: Run, search: str | None) -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4, line_search_fn=search)
    x = torch.randn(6, 4)
    with run.track(optimizer, model):
        for step in range(6):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss: Tensor = (model(x) - 1).square().mean()
                loss.backward()
                if run.first(step):
                    run.after()
                return loss

            optimizer.step(closure)


@conformance
def test_lbfgs_clips_in_its_closure(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    x = torch.randn(6, 4)
    with run.track(optimizer, model):
        for step in range(6):

            def closure(step: int = step) -> float:
                optimizer.zero_grad()
                loss = (model(x) - 1).square().mean() * 10
                loss.backward()
                first = run.first(step)
                if first:
                    run.before()
                norm = clip_grad_norm_(model.parameters(), 1.0)
                if first:
                    run.after("optimizer", Clip(1.0, norm))
                return loss.item()

            optimizer.step(closure=closure)  # type: ignore[arg-type]


@conformance
def test_lbfgs_over_two_batches_in_each_evaluation(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    batches = torch.randn(2, 6, 4)
    with run.track(optimizer, model):
        for step in range(6):

            def closure(step: int = step) -> float:
                optimizer.zero_grad()
                total = 0.0
                for x in batches:
                    loss = (model(x) - 1).square().mean()
                    loss.backward()
                    total += loss.item()
                if run.first(step):
                    run.after(passes=2)
                return total

            optimizer.step(closure)


@pytest.mark.parametrize("keyword", [False, True])
@conformance
def test_adam_with_a_closure(run: Run, keyword: bool) -> None:
    """As Lightning's automatic optimization does it: everything happens inside ``step``."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        run.before()
        norm = clip_grad_norm_(model.parameters(), 1.0)
        run.after("optimizer", Clip(1.0, norm))
        return loss

    losses = []
    with run.track(optimizer, model):
        for _ in range(6):
            loss = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
            losses.append(loss)
    run.leave(losses=losses)


@conformance
def test_a_closure_that_evaluates_without_a_backward(run: Run) -> None:
    """The gradients were made before; the closure only tells the loss."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step(lambda: 0.0)  # type: ignore[arg-type]


@conformance
def test_a_closure_of_none(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for step in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.after()
            optimizer.step(None) if step % 2 else optimizer.step(closure=None)  # type: ignore[call-overload]


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization (Foret et al., 2021), after the implementation that most people copy."""

    def __init__(self, parameters: Any, base: type[torch.optim.Optimizer], rho: float = 0.05, **rest: Any) -> None:
        super().__init__(parameters, {"rho": rho, **rest})
        self.base_optimizer = base(self.param_groups, **rest)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def first_step(self) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.detach().clone()
                p.add_(p.grad, alpha=group["rho"] / float(norm + 1e-12))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"])
        self.base_optimizer.step()
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        closure = torch.enable_grad()(closure)
        self.first_step()
        closure()
        self.second_step()


@conformance
def test_sam_by_its_two_steps_tracked_by_the_base(run: Run) -> None:
    """What the base optimizer consumes is the gradient at the perturbed weights, of the second pass."""
    model = mlp()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.05)
    with run.track(optimizer.base_optimizer, model):
        for _ in range(6):
            x = torch.randn(6, 4)
            model(x).square().mean().backward()
            optimizer.first_step()
            model(x).square().mean().backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=2)
            optimizer.second_step()
    run.leave(optimizer=optimizer)


@conformance
def test_sam_by_a_closure(run: Run) -> None:
    """The optimizer's step evaluates its closure once, after it has used up and zeroed the first gradient."""
    model = mlp()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            x = torch.randn(6, 4)

            def closure(x: Tensor = x) -> Tensor:
                loss: Tensor = model(x).square().mean()
                loss.backward()
                run.after(passes=2)
                return loss

            model(x).square().mean().backward()
            optimizer.step(closure)


@conformance
def test_sam_and_its_base_both_tracked(run: Run) -> None:
    """Two records of one update; the inner step ends first."""
    model = mlp()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.05)
    with run.track({"outer": optimizer, "inner": optimizer.base_optimizer}, model):
        for _ in range(6):
            x = torch.randn(6, 4)

            def closure(x: Tensor = x) -> Tensor:
                loss: Tensor = model(x).square().mean()
                loss.backward()
                run.after("inner", passes=2)
                run.after("outer", passes=2)
                return loss

            model(x).square().mean().backward()
            optimizer.step(closure)


class TwiceEvaluated(torch.optim.SGD):
    """Evaluates its closure at two points, as extragradient methods do."""

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        loss = super().step(closure)
        super().step(closure)
        assert loss is not None
        return loss


@conformance
def test_a_step_that_calls_super_twice_with_the_closure(run: Run) -> None:
    model = mlp()
    optimizer = TwiceEvaluated(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(6):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                if run.first(step):
                    run.after()
                return loss

            optimizer.step(closure)
