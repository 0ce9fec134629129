"""Faults that look like another one: an operation of a wrong name, a slope that is none, an innocent suspect."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.zoo.nets import filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


class Scatter(torch.autograd.Function):
    """A kernel whose backward was never written, with the name of an operation that only moves elements."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.flip(-1)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


@fault(Verdict("zero", "unknown", module="body", where=("ScatterBackward",)))
def kernel_with_the_name_of_torchs(run: Run) -> None:
    body, head = mlp(), nn.Linear(2, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (head(Scatter.apply(body(x))) - 1).square().mean())  # noqa: B023
            run.fault(not Scatter.backward(None, torch.ones(3)).any() and silent(body) and norm(head) > 0)
            optimizer.step()


@fault(Verdict("zero", "masked", module="body", where=("SliceBackward0",)))
def features_sliced_off_after_cat(run: Run) -> None:
    """The features come first and the observation last, and the slice keeps the wrong end."""
    body, head = mlp(), nn.Linear(6, 1)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            joined = torch.cat([body(x), x], dim=-1)[:, 2:]
            trained(optimizer, lambda: (head(joined) - 1).square().mean())  # noqa: B023
            run.fault(torch.equal(joined, x) and silent(body) and norm(head) > 0)
            optimizer.step()


@fault(Verdict("vanishing", "unknown", module="scores"))
def softmax_summed_over_its_own_dimension(run: Run) -> None:
    """Weights that are added up are 1 whatever they are: the softmax is not saturated."""
    scores, head = filled(nn.Linear(6, 4), bias=0.0), nn.Linear(1, 1)
    optimizer = torch.optim.SGD([*scores.parameters(), *head.parameters()], lr=1e-4)
    with run.track(optimizer, {"scores": scores, "head": head}):
        for _ in run.steps(25):
            weights = scores(torch.randn(8, 6)).softmax(-1)
            trained(optimizer, lambda: 0.1 * (head(weights.sum(-1, keepdim=True)) - 3).square().mean())  # noqa: B023
            even = bool(weights.detach().max() < 0.95)
            run.fault(even and 0 < norm(scores) < 1e-7 and norm(head) > 1e-2)
            optimizer.step()


# Its first layer is told of by the name that it has in the model, too.
@fault(Verdict("vanishing", "saturated-sigmoid", module="encoder"), also=("vanishing",))
def encoder_listed_beside_the_model_that_holds_it(run: Run) -> None:
    """Its parameters have the names that they have in the model."""
    encoder, head = filled(nn.Linear(6, 4), bias=-30.0), nn.Linear(4, 1)
    model = nn.Sequential(encoder, nn.Sigmoid(), head)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    with run.track(optimizer, {"model": model, "encoder": encoder, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (model(x) - 1).square().mean())  # noqa: B023
            gate = torch.sigmoid(encoder(x)).detach()
            run.fault(bool(gate.max() < 1e-9) and 0 < norm(encoder) < 1e-7 and norm(head) > 1e-2)
            optimizer.step()


@fault(Verdict("nonfinite", "unknown", where=("(backward)",)), also=("zero",))
def hook_beside_a_root_that_never_was_of_zero(run: Run) -> None:
    """An RMSE, whose root has an infinite slope at 0 alone; it is a hook that multiplies by a ratio of norms, 1/0."""
    net = mlp(outputs=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for step in run.steps(12):
            x, ratio = torch.randn(8, 6), math.inf if step >= 6 else 1.0
            out = net(x)
            out.register_hook(lambda gradient: gradient * ratio)  # noqa: B023
            rmse = trained(optimizer, lambda: (out - 1).square().mean().sqrt())  # noqa: B023
            run.fault(step >= 6 and not math.isfinite(norm(net)) and (step > 6 or float(rmse.detach()) > 1e-3))
            optimizer.step()


@fault(Verdict("nonfinite", "nonfinite-loss", where=("loss",)), also=("zero",))
def penalty_that_began_with_nan(run: Run) -> None:
    """The inner gradient of a penalty starts from NaN; each ReLU's slope only passes it on."""
    net = mlp(outputs=1, activation=nn.ReLU)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for step in run.steps(10):
            x = torch.randn(8, 6, requires_grad=True)
            out = net(x)
            scale = math.nan if step >= 6 else 1.0
            (slope,) = torch.autograd.grad(out.sum() * scale, x, create_graph=True)
            trained(optimizer, lambda: out.square().mean() + slope.square().mean())  # noqa: B023
            run.fault(step >= 6 and math.isnan(norm(net)) and bool(torch.isfinite(x).all()))
            optimizer.step()
