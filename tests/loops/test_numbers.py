"""Gradients of every type of number, magnitude and layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import usual_steps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@conformance
def test_other_types_of_number(run: Run, dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, lambda: model(torch.randn(6, 4, dtype=dtype)).square().mean())


@conformance
def test_mixed_types_of_number(run: Run) -> None:
    """The head in float32, the trunk in bfloat16, one scalar in float64: one norm over all."""
    trunk, head = nn.Linear(4, 8).bfloat16(), nn.Linear(8, 1)
    scalar = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    model = nn.ModuleDict({"trunk": trunk, "head": head})
    model.register_parameter("scalar", scalar)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (head(trunk(torch.randn(6, 4).bfloat16()).float()).square().mean() * scalar).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


class Rotation(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.randn(3, 4, dtype=dtype))
        self.out = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.phase @ x.to(self.phase.dtype)).abs().float().T)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@conformance
def test_complex_parameters(run: Run, dtype: torch.dtype) -> None:
    model = Rotation(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(4, 5)).square().mean().mul(10).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@pytest.mark.parametrize("magnitude", [1e-44, 1e-30, 1e-23, 1e19, 1e30])
@conformance
def test_magnitudes_at_which_torchs_norm_fails(run: Run, magnitude: float) -> None:
    """Finite gradients whose squares are not: torch's norm is 0 or Inf, and clipping does what it then does."""
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (model(torch.randn(3)) * magnitude).sum().backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@pytest.mark.parametrize("magnitude", [1e-300, 1e-170, 1e160, 1e300])
@conformance
def test_magnitudes_at_which_float64_fails(run: Run, magnitude: float) -> None:
    model = nn.Linear(3, 2, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (model(torch.randn(3).double()) * magnitude).sum().backward()
            run.before()
            model.weight.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@conformance
def test_nan_and_inf_without_a_scaler(run: Run) -> None:
    """Nobody skips the step: the optimizer consumes what there is."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            if step >= 4:
                model[3].bias.grad = torch.tensor([float("inf" if step == 4 else "nan")])
            run.after()
            optimizer.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.nan_to_num_(0.0, 0.0, 0.0)


@conformance
def test_a_lazy_module_and_expanded_gradients(run: Run) -> None:
    """The gradient of a bare sum is an expanded scalar: stride 0, until it is accumulated."""
    model = nn.Sequential(nn.LazyLinear(3), nn.Tanh())
    model(torch.ones(1, 4))
    free = nn.Parameter(torch.randn(3, 5))
    optimizer = torch.optim.SGD([*model.parameters(), free], lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (model(torch.randn(2, 4)).sum() + free.sum()).backward()
            run.before()
            for parameter in (*model.parameters(), free):
                parameter.grad = parameter.grad * 0.5  # type: ignore[operator]
            run.after()
            optimizer.step()


@conformance
def test_gradients_that_are_views(run: Run) -> None:
    """Flat gradient buffers, as fused and sharded trainers keep them: every ``.grad`` is a slice of one tensor."""
    model = mlp()
    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters))
    for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = piece.view_as(parameter)
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            flat.zero_()
            loss_of(model).backward()
            run.before()
            flat.mul_(0.5)
            run.after()
            optimizer.step()
