"""Steps that raise, and loops that go on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


class Fragile(torch.optim.SGD):
    failing = False

    def step(self, closure: Any = None) -> Any:
        if self.failing:
            raise ZeroDivisionError
        return super().step(closure)


@conformance
def test_an_exception_in_the_step(run: Run) -> None:
    """A step that raised was none; the loop goes on and takes it again with the same gradients."""
    model = mlp()
    optimizer = Fragile(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(8):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            if step % 3 == 1:
                optimizer.failing = True
                with pytest.raises(ZeroDivisionError):
                    optimizer.step()
                optimizer.failing = False
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@conformance
def test_an_exception_in_the_step_and_on_with_the_next_batch(run: Run) -> None:
    model = mlp()
    optimizer = Fragile(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(9):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.failing = step % 3 == 1
            if optimizer.failing:
                with pytest.raises(ZeroDivisionError):
                    optimizer.step()
            else:
                run.after(passes=2 if step % 3 == 2 else 1)
                optimizer.step()


@conformance
def test_an_exception_in_the_closure(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    failing = False

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        if failing:
            raise ZeroDivisionError
        loss.backward()
        run.after()
        return loss

    with run.track(optimizer, model):
        for step in range(9):
            failing = step % 3 == 1
            if failing:
                with pytest.raises(ZeroDivisionError):
                    optimizer.step(closure)
            else:
                optimizer.step(closure)


@conformance
def test_a_user_hook_that_raises(run: Run) -> None:
    """A guard of the user's own that refuses a step: no record, and the next one is right."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    refusing = False

    def refuse(*_: object) -> None:
        if refusing:
            raise ZeroDivisionError

    optimizer.register_step_pre_hook(refuse)
    with run.track(optimizer, model):
        for step in range(9):
            optimizer.zero_grad()
            loss_of(model).backward()
            refusing = step % 3 == 1
            if refusing:
                with pytest.raises(ZeroDivisionError):
                    optimizer.step()
            else:
                run.after(passes=2 if step % 3 == 2 else 1)
                optimizer.step()
