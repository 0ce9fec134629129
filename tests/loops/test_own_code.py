"""Gradients changed by the user's own code between the last backward and the step: no torch function to see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def own_norm(model: nn.Module) -> Tensor:
    return torch.stack([g.norm() for g in gradients(model)]).norm()


def factor(model: nn.Module, limit: float = 0.5) -> float:
    return min(1.0, limit / (float(own_norm(model)) + 1e-6))


def in_place(model: nn.Module) -> None:
    c = factor(model)
    for gradient in gradients(model):
        gradient.mul_(c)


def replaced(model: nn.Module) -> None:
    c = factor(model)
    for parameter in model.parameters():
        parameter.grad = parameter.grad * c  # type: ignore[operator]


def through_data(model: nn.Module) -> None:
    """Raises no version counter."""
    c = factor(model)
    for parameter in model.parameters():
        parameter.grad.data.mul_(c)  # type: ignore[union-attr]


def foreach(model: nn.Module) -> None:
    torch._foreach_mul_(gradients(model), factor(model))


def through_numpy(model: nn.Module) -> None:
    """Raises no version counter either."""
    c = factor(model)
    for gradient in gradients(model):
        array = gradient.numpy()
        array *= c


def clamped(model: nn.Module) -> None:
    for gradient in gradients(model):
        gradient.clamp_(-0.05, 0.05)


def sign(model: nn.Module) -> None:
    for gradient in gradients(model):
        gradient.sign_()


def noise(model: nn.Module) -> None:
    """As in Neelakantan et al., 2015: the norm may grow."""
    for gradient in gradients(model):
        gradient.add_(torch.randn_like(gradient), alpha=0.3)


def centralised(model: nn.Module) -> None:
    """As in Yong et al., 2020: the mean over all but the output dimension is taken away."""
    for gradient in gradients(model):
        if gradient.dim() > 1:
            gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True))


def adaptive(model: nn.Module) -> None:
    """As in Brock et al., 2021: unit by unit, against the norm of the unit's weights."""
    for parameter in model.parameters():
        rows = parameter.detach().reshape(len(parameter), -1), parameter.grad.reshape(len(parameter), -1)  # type: ignore[union-attr]
        weights, grads = (r.norm(dim=1, keepdim=True) for r in rows)
        limit = weights.clamp_min(1e-3) * 0.01
        clipped = rows[1] * (limit / grads.clamp_min(1e-6))
        parameter.grad = torch.where(grads > limit, clipped, rows[1]).view_as(parameter)


def sparsified(model: nn.Module) -> None:
    """Only the largest tenth of each gradient is kept, as before sending it over a slow network."""
    for gradient in gradients(model):
        keep = max(1, gradient.numel() // 10)
        limit = gradient.abs().flatten().kthvalue(gradient.numel() - keep + 1).values
        gradient[gradient.abs() < limit] = 0.0


def some_removed(model: nn.Module) -> None:
    model[0].bias.grad = None  # type: ignore[index]


def through_one_vector(model: nn.Module) -> None:
    """Gradients projected as one vector and written back, as in PCGrad and the like."""
    vector = parameters_to_vector(gradients(model))
    direction = torch.ones_like(vector) / vector.numel() ** 0.5
    vector_to_parameters(vector - (vector @ direction) * direction, gradients(model))


CHANGES: list[Callable[[nn.Module], None]] = [
    in_place, replaced, through_data, foreach, through_numpy, clamped, sign, noise, centralised, adaptive,
    sparsified, some_removed, through_one_vector,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@conformance
def test_gradients_changed_by_own_code(run: Run, change: Callable[[nn.Module], None]) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            with torch.no_grad():
                change(model)
            run.after()
            optimizer.step()


@pytest.mark.parametrize("change", CHANGES)
@conformance
def test_the_same_before_torchs_own_clipping(run: Run, change: Callable[[nn.Module], None]) -> None:
    """``norm_before`` stays that of the end of backward."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            with torch.no_grad():
                change(model)
            norm = clip_grad_norm_(model.parameters(), 0.3)
            run.after("optimizer", Clip(0.3, norm))
            optimizer.step()


@conformance
def test_the_whole_gradient_thrown_away_now_and_then(run: Run) -> None:
    """A loop that skips bad batches by zeroing, and steps all the same."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with run.track(optimizer, model):
        for step in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            if step % 3 == 2:
                optimizer.zero_grad(set_to_none=False)
            run.after()
            optimizer.step()


@conformance
def test_a_norm_of_zero_before_and_after(run: Run) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (loss_of(model) * 0.0).backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@conformance
def test_weights_clipped_after_the_step(run: Run) -> None:
    """As in the Wasserstein GAN: no business of the gradients'."""
    model = mlp()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.after()
            optimizer.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.clamp_(-0.1, 0.1)


@conformance
def test_gradient_hooks_on_tensors(run: Run) -> None:
    """Clipped inside the backward, parameter by parameter: what reaches ``.grad`` was never larger."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.05, 0.05))
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.after()
            optimizer.step()


@pytest.mark.parametrize("when", ["before tracking", "while tracking"])
@conformance
def test_clipping_in_a_post_accumulate_hook(run: Run, when: str) -> None:
    """Changed in place as soon as it is accumulated, inside the backward: the end of backward sees it so."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def clip(parameter: Tensor) -> None:
        parameter.grad.clamp_(-0.05, 0.05)  # type: ignore[union-attr]

    def register() -> None:
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(clip)

    if when == "before tracking":
        register()
    with run.track(optimizer, model):
        if when == "while tracking":
            register()
        for _ in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.after()
            optimizer.step()
