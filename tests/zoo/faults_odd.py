"""Zeros whose cause nothing saved can tell: the verdict is ``unknown``, with the place and what was ruled out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.nets import convolutions, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


class Quantised(torch.autograd.Function):
    """A kernel whose backward was never written."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (x * 16).round() / 16

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


@fault(Verdict("zero", "unknown", module="body", where=("QuantisedBackward",)))
def kernel_without_a_backward(run: Run) -> None:
    body, head = convolutions(), nn.Linear(6, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(25):
            features = body(torch.randn(4, 1, 6, 6))
            trained(optimizer, lambda: (head(Quantised.apply(features)) - 1).square().mean())  # noqa: B023
            slope = Quantised.backward(None, torch.ones(3))
            run.fault(not slope.any() and silent(body) and norm(head) > 0)
            optimizer.step()


@fault(Verdict("zero", "constant", module="codes", where=("RoundBackward0", "codes")))
def rounding_without_a_straight_through_gradient(run: Run) -> None:
    codes, head = mlp(6, 8, 4), nn.Linear(4, 1)
    optimizer = torch.optim.SGD([*codes.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"codes": codes, "head": head}):
        for _ in run.steps(25):
            rounded = (codes(torch.randn(8, 6)) * 3).round()
            trained(optimizer, lambda: (head(rounded) - 1).square().mean())  # noqa: B023
            run.fault(torch.equal(rounded, rounded.round()) and silent(codes) and norm(head) > 0)
            optimizer.step()


@fault(Verdict("zero", "unknown", module="baseline"))
def terms_that_cancel(run: Run) -> None:
    """A baseline that is added and taken away again: its two contributions cancel exactly."""
    policy, baseline = mlp(4, 8, 1), nn.Linear(4, 1)
    optimizer = torch.optim.Adam([*policy.parameters(), *baseline.parameters()], lr=1e-3)
    with run.track(optimizer, {"policy": policy, "baseline": baseline}):
        for _ in run.steps(25):
            state = torch.randn(8, 4)
            value = baseline(state)
            trained(optimizer, lambda: policy(state).square().mean() + value.sum() - value.sum())  # noqa: B023
            run.fault(silent(baseline) and norm(policy) > 0)
            optimizer.step()
