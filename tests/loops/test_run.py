"""The harness finds what it is there to find: a wrong number, a perturbed run, a torch that is not restored."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance

Train = Callable[[Run, nn.Module, torch.optim.Optimizer], None]


def loop(step: Train) -> Callable[[str], None]:
    @conformance
    def test(run: Run) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with run.track(optimizer, model):
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(model).backward()
                step(run, model, optimizer)
                optimizer.step()

    return test


def halve(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad.mul_(0.5)  # type: ignore[union-attr]


def wrong_before(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    halve(model)
    run.after()


def wrong_after(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.after()
    halve(model)


def a_clip_that_was_none(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.after("optimizer", Clip(1.0, 2.0))


def too_many_passes(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.after(passes=2)


def a_step_too_many(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.after()
    run.after()


def a_skip(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.skipped(loss_scale=2.0)


def perturbed(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.after()
    if run.trackers[0].watch is not None:
        with torch.no_grad():
            model[0].bias[0].nextafter_(torch.tensor(9.0))  # type: ignore[index]


def a_number_drawn(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.after()
    if run.trackers[0].watch is not None:
        random.random()


def a_hook_left(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    run.after()
    if run.trackers[0].watch is not None:
        optimizer.register_step_post_hook(lambda *_: None)


FAULTS: dict[Train, str] = {
    wrong_before: "norm_before is",
    wrong_after: "norm_after is",
    a_clip_that_was_none: "max_norm is None, the truth is 1.0",
    too_many_passes: "backward_passes is 1, the truth is 2",
    a_step_too_many: "records of",
    a_skip: "skipped is False",
    perturbed: "tracking changed training: .optimizers1.optimizer.group0.param0",
    a_number_drawn: "tracking changed training: .process.python",
    a_hook_left: "tracking changed training: .optimizers1.optimizer._optimizer_step_post_hooks",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: Train) -> None:
    with pytest.raises(pytest.fail.Exception) as found:
        loop(fault)(way="each step")
    assert FAULTS[fault] in str(found.value)


def test_torch_not_restored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def left_behind(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        run.after()
        if run.trackers[0].watch is not None:
            monkeypatch.setattr(clip_grad, "clip_grad_norm_", lambda *_: None)

    with pytest.raises(
        pytest.fail.Exception, match=r"torch was not restored: torch.nn.utils.clip_grad.clip_grad_norm_"
    ):
        loop(left_behind)(way="each step")
