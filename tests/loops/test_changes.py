"""Parameters that come and go while they are trained: unfrozen, added, replaced."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gradwatch
from tests.loops.models import Net, loss_of
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import halved_step, usual_step
from tests.reference import exact_norm


@conformance
def test_frozen_layers_in_the_optimizer(run: Run) -> None:
    model = Net()
    model.body.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            usual_step(run, model, optimizer)


@conformance
def test_frozen_layers_left_out_of_the_optimizer(run: Run) -> None:
    model = Net()
    model.body.requires_grad_(False)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            usual_step(run, model, optimizer)


@pytest.mark.parametrize("own", [False, True])
@conformance
def test_layers_unfrozen_and_frozen_again(run: Run, own: bool) -> None:
    """A parameter that needed no gradient could not be hooked; the body's gradient stays when it is frozen again."""
    model = Net()
    model.body.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    take = halved_step if own else usual_step
    with run.track(optimizer, model):
        for count in range(9):
            model.body.requires_grad_(3 <= count < 6)
            take(run, model, optimizer)


@conformance
def test_all_layers_frozen_at_first(run: Run) -> None:
    model = Net()
    model.body.requires_grad_(False)
    model.head.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for layer in (model.head, model.body):
            layer.requires_grad_(True)
            for _ in range(3):
                halved_step(run, model, optimizer)


@pytest.mark.parametrize("own", [False, True])
@conformance
def test_a_group_added_while_training(run: Run, own: bool) -> None:
    model = Net()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=0.01)
    take = halved_step if own else usual_step
    with run.track(optimizer, model):
        for count in range(8):
            if count == 3:
                optimizer.add_param_group({"params": model.body.parameters(), "lr": 0.001})
            take(run, model, optimizer)


@conformance
def test_a_group_added_directly_before_the_clip_call(run: Run) -> None:
    """Its gradients were written when nobody knew of it: the clip call is the first to show them."""
    model = Net()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for count in range(6):
            model.zero_grad()
            loss_of(model).backward()
            if count == 2:
                optimizer.add_param_group({"params": model.body.parameters()})
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()


@conformance
def test_a_group_added_directly_before_the_step(run: Run) -> None:
    """Nothing has clipped its gradients since: before is what is consumed."""
    model = Net()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for count in range(6):
            model.zero_grad()
            loss_of(model).backward()
            if count == 2:
                optimizer.add_param_group({"params": model.body.parameters()})
            run.after()
            optimizer.step()


@conformance
def test_a_group_removed_and_put_back(run: Run) -> None:
    model = Net()
    optimizer = torch.optim.SGD(
        [{"params": model.body.parameters()}, {"params": model.head.parameters()}], lr=0.05
    )
    with run.track(optimizer, model):
        for count in range(9):
            if count == 3:
                removed = optimizer.param_groups.pop(0)
            if count == 6:
                optimizer.param_groups.append(removed)
            halved_step(run, model, optimizer)


@conformance
def test_a_parameter_replaced_in_model_and_optimizer(run: Run) -> None:
    """As layers are resized: another tensor in the same place, under the same name."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for count in range(8):
            if count in (2, 5):
                new = nn.Parameter(torch.randn(8, 4) * 0.1)
                model.body.weight = new
                optimizer.param_groups[0]["params"][0] = new
            halved_step(run, model, optimizer)


@conformance
def test_a_parameter_replaced_by_one_of_another_shape(run: Run) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for count in range(8):
            if count == 3:
                model.body.weight, model.body.bias = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.zeros(5))
                model.head.weight = nn.Parameter(torch.randn(1, 5))
                optimizer.param_groups[0]["params"][:] = list(model.parameters())
            usual_step(run, model, optimizer)


@conformance
def test_a_module_replaced(run: Run) -> None:
    """A new head under the old name, its parameters a new group, the old one's dropped."""
    model = Net()
    optimizer = torch.optim.SGD(
        [{"params": model.body.parameters()}, {"params": model.head.parameters()}], lr=0.05
    )
    with run.track(optimizer, model):
        for count in range(8):
            if count == 4:
                model.head = nn.Linear(8, 1)
                optimizer.param_groups[1]["params"] = list(model.head.parameters())
            halved_step(run, model, optimizer)


@conformance
def test_a_layer_added(run: Run) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with run.track(optimizer, model):
        for count in range(8):
            if count % 3 == 2:
                model.append(nn.Linear(6, 6))
                optimizer.add_param_group({"params": model[-1].parameters()})
            halved_step(run, model, optimizer)


@conformance
def test_a_model_replaced_by_one_of_the_same_memory(run: Run) -> None:
    """New parameters, often at the address of the old ones: an id alone proves nothing."""
    model = nn.ModuleDict({"net": Net()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(8):
            optimizer.param_groups[0]["params"].clear()
            optimizer.state.clear()
            del model["net"]
            model["net"] = Net()
            optimizer.param_groups[0]["params"].extend(model.parameters())
            optimizer.zero_grad()
            loss_of(model["net"]).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@conformance
def test_a_group_emptied(run: Run) -> None:
    """The optimizer holds nothing of the body any more: the body has no line in its report."""
    model = Net()
    optimizer = torch.optim.SGD(
        [{"params": model.body.parameters()}, {"params": model.head.parameters()}], lr=0.05
    )
    with run.track(optimizer, model):
        for count in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            if count == 3:
                optimizer.param_groups[0]["params"] = []
            run.before()
            norm = clip_grad_norm_(model.head.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()


def test_a_replaced_parameter_is_let_go() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    replaced = []
    with gradwatch.track(optimizer, model, history=1):
        for _ in range(4):
            replaced.append(weakref.ref(model.body.weight))
            model.body = nn.Linear(4, 8)
            optimizer.param_groups[0]["params"] = list(model.parameters())
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        gc.collect()
        assert [parameter() for parameter in replaced] == [None] * 4


class Kept(torch.Tensor):
    """Whatever is no plain tensor is measured as on a device: its norm is fetched with those of other steps."""


@pytest.mark.parametrize("change", ["added", "emptied", "filled again"])
def test_norms_on_their_way_arrive_though_the_parameters_change(change: str) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    norms = []
    with gradwatch.track(optimizer, model) as watch:
        for count in range(6):
            if count == 3:
                group = optimizer.param_groups[0]
                group["params"] = [] if change != "added" else [*model.parameters(), nn.Parameter(torch.ones(2))]
            if count == 4 and change == "filled again":
                group["params"] = list(model.parameters())
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            for parameter in model.parameters():
                parameter.grad = parameter.grad.as_subclass(Kept)
            held = [p for p in group["params"] if p.grad is not None] if count > 2 else list(model.parameters())
            norms.append(exact_norm(p.grad.as_subclass(torch.Tensor) for p in held) if held else 0.0)
            optimizer.step()
    assert watch.health().internal_errors == 0
    assert [record.norm_after for record in watch.history] == pytest.approx(norms)


def test_the_norm_of_a_clip_call_arrives_though_the_parameters_change_behind_it() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    norms = []
    with gradwatch.track(optimizer, model) as watch:
        for count in range(4):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            for parameter in model.parameters():
                parameter.grad = parameter.grad.as_subclass(Kept)
            norms.append(float(clip_grad_norm_(model.parameters(), 0.1)))
            if count == 2:
                optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
            optimizer.step()
    assert [record.clips[0].norm_returned for record in watch.history] == norms
    assert [record.norm_before for record in watch.history] == pytest.approx(norms, rel=1e-5)
