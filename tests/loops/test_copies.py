"""Models and optimizers converted, loaded, copied and saved while they are trained."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import Net, loss_of
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import usual_step


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@conformance
def test_converted_while_training(run: Run, dtype: torch.dtype) -> None:
    """``model.to`` exchanges the data of the same parameters, and of their gradients."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for count in range(6):
            kind = dtype if count >= 3 else torch.float32
            model.to(kind)
            optimizer.zero_grad()
            model(torch.randn(6, 4, dtype=kind)).square().mean().mul(10).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@conformance
def test_converted_between_backward_and_step(run: Run) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(4):
            model.float()
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            model.double()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()


@conformance
def test_parameters_overwritten_by_a_conversion(run: Run) -> None:
    """With this switch of torch's, ``to`` makes new parameters; the loop hands them to its optimizer."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for count in range(6):
            if count == 3:
                torch.__future__.set_overwrite_module_params_on_conversion(True)
                try:
                    model.double()
                finally:
                    torch.__future__.set_overwrite_module_params_on_conversion(False)
                optimizer.param_groups[0]["params"] = list(model.parameters())
            optimizer.zero_grad()
            model(torch.randn(6, 4, dtype=model.body.weight.dtype)).square().mean().mul(10).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@conformance
def test_weights_set_through_data_and_loaded(run: Run) -> None:
    model = Net()
    saved = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for count in range(8):
            if count == 2:
                model.load_state_dict(saved)
            if count == 4:
                model.load_state_dict({k: v.clone() for k, v in saved.items()}, assign=False)
            if count == 6:
                model.head.weight.data = torch.randn(1, 8)
            usual_step(run, model, optimizer)


@conformance
def test_a_checkpoint_loaded_by_assignment(run: Run) -> None:
    """``assign=True`` makes other parameters; the optimizer goes on with the old ones, which nothing uses."""
    model = Net()
    saved = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer):
        for count in range(6):
            if count == 3:
                model.load_state_dict(saved, assign=True)
            optimizer.zero_grad()
            model.zero_grad()
            loss_of(model).backward()
            run.after(passes=int(count < 3))
            optimizer.step()


@conformance
def test_copies_of_model_and_optimizer(run: Run) -> None:
    """Copied in the middle; the copies are trained on, and are nobody's business."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(3):
            usual_step(run, model, optimizer)
        twin, other = copy.deepcopy((model, optimizer))
        for count in range(6):
            other.zero_grad()
            loss_of(twin).backward()
            clip_grad_norm_(twin.parameters(), 0.1)
            other.step()
            if count % 2:
                usual_step(run, model, optimizer)
    run.leave(twin=twin, other=other)


@conformance
def test_saved_and_read_back(run: Run) -> None:
    """Pickled whole, as some people keep checkpoints; the state is that of an untracked run."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    checkpoints: list[Any] = []
    with run.track(optimizer, model):
        for _ in range(6):
            usual_step(run, model, optimizer)
            file = io.BytesIO()
            torch.save({"model": model, "optimizer": optimizer, "state": optimizer.state_dict()}, file)
            file.seek(0)
            checkpoints.append(torch.load(file, weights_only=False))
        optimizer.load_state_dict(checkpoints[2]["state"])
        model.load_state_dict(checkpoints[2]["model"].state_dict())
        for _ in range(3):
            usual_step(run, model, optimizer)
        pickled = pickle.loads(pickle.dumps(optimizer))
    run.leave(checkpoints=checkpoints, pickled=pickled)


@conformance
def test_a_new_optimizer_is_not_the_tracked_one(run: Run) -> None:
    """The loop goes on with another optimizer: its steps are not those of the one that was tracked."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(3):
            usual_step(run, model, optimizer)
        second = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(3):
            second.zero_grad()
            loss_of(model).backward()
            second.step()
    run.leave(second=second)
