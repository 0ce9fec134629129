"""Where torch makes it hard to look: checkpoints, custom functions, accumulation, graphs kept for later."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.zoo.nets import batch, filled
from tests.zoo.still import Loop, still


@still("saturated-tanh", at="body.0", where="body.1")
def checkpointed_tanh() -> Loop:
    body, head, x = nn.Sequential(filled(nn.Linear(4, 4), bias=30.0), nn.Tanh()), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(checkpoint(body, x, use_reentrant=False)).sum().backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: bool((body(x) == 1).all()))


@still("dead-relu", at="body.0", where="body.1")
def checkpointed_relu() -> Loop:
    body, head, x = nn.Sequential(filled(nn.Linear(4, 4), bias=-30.0), nn.ReLU()), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(checkpoint(body, x, use_reentrant=False)).sum().backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: not body(x).any())


@still("zero-weight", at="body.0", where="body.1")
def checkpointed_zero_weight() -> Loop:
    body, x = nn.Sequential(nn.Linear(4, 4), filled(nn.Linear(4, 1), weight=0.0)), batch(3, 4)
    step = lambda: (checkpoint(body, x, use_reentrant=False) - 1).square().sum().backward()  # noqa: E731
    return Loop({"body": body}, step, lambda: not body[1].weight.any())


@still("zero-input", at="body.0.weight", where="body.0")
def checkpointed_zero_input() -> Loop:
    body, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), torch.zeros(3, 4)
    step = lambda: (checkpoint(body, x, use_reentrant=False) - 1).square().sum().backward()  # noqa: E731
    return Loop({"body": body}, step, lambda: not x.any())


@still("dead-relu", at="body.0", where="body.1", dead_units=4)
def reentrant_checkpoint() -> Loop:
    body, head, x = nn.Sequential(filled(nn.Linear(4, 4), bias=-30.0), nn.ReLU()), nn.Linear(4, 1), batch(3, 4)
    x.requires_grad_()
    step = lambda: head(checkpoint(body, x, use_reentrant=True)).sum().backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: not body(x).any())


@still("zero-loss", at="body.0")
def reentrant_checkpoint_below_a_zero_loss() -> Loop:
    body, head, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 1), batch(3, 4)
    x.requires_grad_()
    step = lambda: (head(checkpoint(body, x, use_reentrant=True)).sum() * 0.0).backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: True)


class Silent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


class Scatter(Silent):
    """Called like an operation of torch's that only moves elements or writes over them."""


@still("unknown", at="0", operation="ScatterBackward", ruled_out="unused, no-grad, detached, zero-loss")
def custom_function_with_a_name_of_torchs() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)
    return Loop(net, lambda: net[1](Scatter.apply(net[0](x))).sum().backward(), lambda: True)


class GivesNone(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> None:
        return None


@still("unknown", at="0", operation="SilentBackward", ruled_out="unused, no-grad, detached, zero-loss")
def custom_function() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)
    return Loop(net, lambda: net[1](Silent.apply(net[0](x))).sum().backward(), lambda: True)


@still("unknown", at="0", operation="GivesNoneBackward")
def custom_function_without_gradient() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)
    return Loop(net, lambda: net[1](GivesNone.apply(net[0](x))).sum().backward(), lambda: True)


@still("constant", at="net", operation="RoundBackward0")
def rounding() -> Loop:
    net, x = nn.Linear(4, 4), batch(3, 4)
    return Loop({"net": net}, lambda: net(x).round().sum().backward(), lambda: True)


@still("unknown", at="net")
def contributions_cancel() -> Loop:
    net, x = nn.Linear(4, 4), batch(3, 4)

    def step() -> None:
        out = net(x)
        (out.sum() - out.sum()).backward()

    return Loop({"net": net}, step, lambda: True)


@still("dead-relu", at="0", where="1")
def accumulation() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 4), bias=-30.0), nn.ReLU(), nn.Linear(4, 1))
    parts = batch(4, 2, 4)

    def step() -> None:
        for part in parts:
            (net(part).mean() / len(parts)).backward()

    return Loop(net, step, lambda: bool((net[0](parts) < 0).all()))


@still("saturated-tanh", at="0", where="1")
def graph_kept_and_used_twice() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=30.0), nn.Tanh(), nn.Linear(4, 1)), batch(3, 4)

    def step() -> None:
        out = net(x)
        out.sum().backward(retain_graph=True)
        out.square().sum().backward()

    return Loop(net, step, lambda: bool((net[:2](x) == 1).all()))


@still("saturated-tanh", at="0", where="1")
def gradient_penalty() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=30.0), nn.Tanh(), nn.Linear(4, 1)), batch(3, 4)

    def step() -> None:
        points = x.clone().requires_grad_()
        out = net(points)
        (slope,) = torch.autograd.grad(out.sum(), points, create_graph=True)
        (out.mean() + slope.square().sum()).backward()

    return Loop(net, step, lambda: bool((net[:2](x) == 1).all()))


@still("dead-relu", at="0", where="1")
def scaled_loss() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=-30.0), nn.ReLU(), nn.Linear(4, 1)), batch(3, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return Loop(net, lambda: scaler.scale(net(x).mean()).backward(), lambda: not net[:2](x).any())


@still("dead-relu", at="0", where="1")
def several_losses_at_once() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=-30.0), nn.ReLU(), nn.Linear(4, 2)), batch(3, 4)

    def step() -> None:
        first, second = net(x).unbind(1)
        torch.autograd.backward([first.sum(), second.square().sum()])

    return Loop(net, step, lambda: not net[:2](x).any())


@still("saturated-tanh", at="0", where="1")
def offloaded_to_memory() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=30.0), nn.Tanh(), nn.Linear(4, 1)), batch(3, 4)

    def step() -> None:
        with torch.autograd.graph.save_on_cpu():
            loss = net(x).sum()
        loss.backward()

    return Loop(net, step, lambda: bool((net[:2](x) == 1).all()))
