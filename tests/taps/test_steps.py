"""One record a step, taken after everything that changes the gradients, whatever stands around ``step``."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.taps.steps import StepTap


def one(value: float = 3.0) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.full((1,), value)
    return parameter


class Said:
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.heard: list[str] = []
        self.tap = StepTap(optimizer, lambda: self.heard.append("consuming"), lambda: self.heard.append("stepped"))
        self.tap.open()


def sgd(parameter: nn.Parameter | None = None) -> torch.optim.SGD:
    return torch.optim.SGD([parameter if parameter is not None else one()], lr=0.1)


def test_a_plain_step() -> None:
    optimizer = sgd()
    said = Said(optimizer)
    optimizer.step()
    optimizer.step()
    assert said.heard == ["consuming", "stepped"] * 2


class Twice(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        super().step()
        return loss


@pytest.mark.parametrize("with_closure", [False, True])
def test_super_step_is_one_step(with_closure: bool) -> None:
    optimizer = Twice([one()], lr=0.1)
    said = Said(optimizer)
    calls = []

    def closure() -> float:
        calls.append(1)
        return 0.5

    assert optimizer.step(closure if with_closure else None) == (0.5 if with_closure else None)
    assert len(calls) == with_closure
    assert said.heard == ["consuming", "stepped"]


@pytest.mark.parametrize("keyword", [False, True])
def test_a_closure_makes_the_gradients_inside_the_step(keyword: bool) -> None:
    parameter = one()
    optimizer = torch.optim.LBFGS([parameter], lr=0.1, max_iter=4)
    said = Said(optimizer)

    def closure() -> Tensor:
        said.heard.append("closure")
        optimizer.zero_grad()
        loss = ((parameter - 2) ** 2).sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
    assert loss.item() == 4.0
    assert said.heard[:2] == ["closure", "consuming"]
    assert said.heard.count("closure") > 1
    assert said.heard.count("consuming") == said.heard.count("stepped") == 1
    assert said.heard[-1] == "stepped"


class Fails(torch.optim.SGD):
    failing = False

    def step(self, closure: Any = None) -> Any:
        if self.failing:
            raise ZeroDivisionError
        return super().step(closure)


def test_after_an_exception_in_step_the_next_one_counts() -> None:
    optimizer = Fails([one()], lr=0.1)
    said = Said(optimizer)
    optimizer.failing = True
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
    optimizer.failing = False
    said.heard.clear()
    optimizer.step()
    optimizer.step()
    assert said.heard == ["consuming", "stepped"] * 2


def test_an_exception_in_a_closure() -> None:
    optimizer = sgd()
    said = Said(optimizer)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert said.heard == []
    optimizer.step(lambda: 1.0)
    assert said.heard == ["consuming", "stepped"]


def test_both_hooks_are_gone_after_close() -> None:
    optimizer = sgd()
    said = Said(optimizer)
    said.tap.close()
    said.tap.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    optimizer.step()
    assert said.heard == []


def test_the_users_own_hooks_survive() -> None:
    optimizer = sgd()
    first = optimizer.register_step_pre_hook(lambda *_: None)
    said = Said(optimizer)
    second = optimizer.register_step_pre_hook(lambda *_: None)
    assert list(optimizer._optimizer_step_pre_hooks) == [first.id, second.id]
    said.tap.close()
    assert list(optimizer._optimizer_step_pre_hooks) == [first.id, second.id]


# From here on through track.


def model_and_optimizer() -> tuple[nn.Linear, torch.optim.SGD]:
    model = nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def backward(model: nn.Module) -> None:
    model(torch.ones(3)).sum().backward()  # a gradient of four ones


def test_a_hook_added_later_that_changes_gradients_is_in_norm_after() -> None:
    model, optimizer = model_and_optimizer()
    with gradwatch.track(optimizer, model) as watch:
        optimizer.register_step_pre_hook(lambda o, *_: [p.grad.mul_(0.25) for p in model.parameters()] and None)
        for _ in range(2):
            optimizer.zero_grad()
            backward(model)
            optimizer.step()
    for record in watch.history:
        assert (record.norm_before, record.norm_after) == pytest.approx((2.0, 0.5))


@pytest.mark.parametrize("trackers", [1, 2])
def test_a_hook_added_between_backward_and_step_is_in_norm_after_at_once(trackers: int) -> None:
    model, optimizer = model_and_optimizer()

    def quarter(*_: object) -> None:
        for parameter in model.parameters():
            parameter.grad.mul_(0.25)  # type: ignore[union-attr]

    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(gradwatch.track(optimizer, model)) for _ in range(trackers)]
        backward(model)
        handles = [optimizer.register_step_pre_hook(quarter) for _ in range(2)]
        for _ in range(2):
            optimizer.step()
            optimizer.zero_grad()
            backward(model)
    for watch in watches:
        assert [r.norm_before for r in watch.history] == pytest.approx([2.0, 2.0])
        assert [r.norm_after for r in watch.history] == pytest.approx([0.125, 0.125])
    assert [optimizer._optimizer_step_pre_hooks[handle.id] for handle in handles] == [quarter, quarter]


def test_a_hook_added_late_that_gives_another_closure_is_followed() -> None:
    model, optimizer = model_and_optimizer()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        backward(model)
        return torch.zeros(())

    with gradwatch.track(optimizer, model) as watch:
        optimizer.register_step_pre_hook(lambda o, args, kwargs: (args, {**kwargs, "closure": closure}))
        optimizer.step()
    assert watch["optimizer"].norm_after == pytest.approx(2.0)
    assert watch.health().internal_errors == 0


def test_a_late_hook_that_raises_leaves_the_users_hooks_as_they_were() -> None:
    model, optimizer = model_and_optimizer()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with gradwatch.track(optimizer, model) as watch:
        backward(model)
        first = optimizer.register_step_pre_hook(lambda *_: None)
        handle = optimizer.register_step_pre_hook(fail)
        first.remove()
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
        assert optimizer._optimizer_step_pre_hooks[handle.id] is fail
        handle.remove()
        optimizer.step()
    assert [record.norm_after for record in watch.history] == pytest.approx([2.0])


def test_a_closure_that_is_never_evaluated_has_its_record() -> None:
    class Deaf(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            super().step()

    model, _ = model_and_optimizer()
    optimizer = Deaf(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer, model) as watch:
        backward(model)
        optimizer.step(lambda: 1.0)
    assert watch["optimizer"].norm_after == pytest.approx(2.0)


@pytest.mark.parametrize("built", ["before", "inside"])
def test_schedulers(built: str) -> None:
    model, optimizer = model_and_optimizer()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1) if built == "before" else None
    with gradwatch.track(optimizer, model) as watch:
        scheduler = scheduler or torch.optim.lr_scheduler.StepLR(optimizer, 1)
        for _ in range(3):
            optimizer.zero_grad()
            backward(model)
            optimizer.step()
            scheduler.step()
    assert [record.step for record in watch.history] == [1, 2, 3]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)


def test_a_step_bound_before_tracking() -> None:
    model, optimizer = model_and_optimizer()
    step = optimizer.step
    with gradwatch.track(optimizer, model) as watch:
        backward(model)
        step()
    assert len(watch.history) == 1


def test_copies_made_inside_the_loop_carry_nothing() -> None:
    model, optimizer = model_and_optimizer()
    with gradwatch.track(optimizer, model) as watch:
        backward(model)
        optimizer.step()
        twin, other = copy.deepcopy((model, optimizer))
        read = pickle.loads(pickle.dumps(model))
        for copied in (twin, read):
            copied.zero_grad()
            backward(copied)
            assert all(not p._post_accumulate_grad_hooks for p in copied.parameters())
        other.step()
        assert not other._optimizer_step_pre_hooks
        assert not other._optimizer_step_post_hooks
        backward(model)
        optimizer.step()
    assert [record.step for record in watch.history] == [1, 2]
    assert watch.history[-1].backward_passes == 1


def test_saved_state_is_that_of_an_untracked_run() -> None:
    model, optimizer = model_and_optimizer()
    plain = set(optimizer.state_dict())
    with gradwatch.track(optimizer, model):
        assert set(optimizer.state_dict()) == plain
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        backward(model)
        optimizer.step()


@pytest.mark.parametrize("failing", [False, True])
def test_every_hook_is_gone_after_the_with(failing: bool) -> None:
    model, optimizer = model_and_optimizer()
    try:
        with gradwatch.track(optimizer, model):
            assert all(p._post_accumulate_grad_hooks for p in model.parameters())
            backward(model)
            optimizer.step()
            if failing:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert all(not p._post_accumulate_grad_hooks for p in model.parameters())
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert "step" not in vars(optimizer)


def test_a_failed_step_leaves_no_record() -> None:
    model = nn.Linear(3, 1)
    optimizer = Fails(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model) as watch:
        backward(model)
        optimizer.failing = True
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
        optimizer.failing = False
        optimizer.step()
    assert [(r.step, r.norm_after) for r in watch.history] == [(1, pytest.approx(2.0))]


class Sharing(torch.optim.Optimizer):
    """A wrapper that takes over the attributes of what it wraps, as some libraries do."""

    def __init__(self, wrapped: torch.optim.Optimizer) -> None:
        self.__dict__.update(wrapped.__dict__)
        self._patch_step_function()

    def step(self, closure: Any = None) -> None:
        pass


def test_a_wrapper_that_was_made_while_its_optimizer_was_tracked() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.track(optimizer, model):
        wrapper = Sharing(optimizer)
    for other in (wrapper, optimizer, wrapper):
        with gradwatch.track(other, model) as watch:
            model(torch.ones(2)).sum().backward()
            other.step()
        assert len(watch.history) == 1
    del optimizer, other, watch
    gc.collect()
    called: list[int] = []
    handle = wrapper.register_step_pre_hook(lambda *_: called.append(1))
    wrapper.step()
    handle.remove()
    wrapper.step()
    assert called == [1]
