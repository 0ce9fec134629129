"""Gradients that are too small for their type."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tests.zoo.nets import batch, filled
from tests.zoo.still import Loop, still


@still("underflow", at="0", dtype="float16")
def half_precision_cast() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)

    def step() -> None:
        features = net[0](x).half().float()
        (net[1](features).mean() * 1e-9).backward()

    return Loop(net, step, lambda: (torch.tensor(1e-9).half() == 0).item())


@still("underflow", at="0")
def half_precision_network() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)).half(), batch(3, 4).half()
    with torch.no_grad():
        net[2].weight.mul_(1e-4)
    step = lambda: (net(x).float().mean() * 1e-3).backward()  # noqa: E731
    return Loop(net, step, lambda: bool(((net[2].weight.double() * 1e-3 / 3).half() == 0).all()))


@still("underflow", at="net")
def scaled_away() -> Loop:
    net, x = nn.Linear(4, 1), batch(3, 4)
    step = lambda: (net(x).mean() * 1e-30 * 1e-30).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: torch.tensor(1e-30) * torch.tensor(1e-30) == 0)


@still("underflow", at="net")
def exponential_of_much() -> Loop:
    net, x = filled(nn.Linear(4, 1), bias=-300.0), batch(3, 4)
    return Loop({"net": net}, lambda: net(x).exp().sum().backward(), lambda: not net(x).exp().any())


@still("underflow", at="0")
def convolution_of_tiny_weights() -> Loop:
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), filled(nn.Conv2d(2, 1, 3), weight=1e-30)), batch(2, 1, 6, 6)
    step = lambda: (net(x).mean() * 1e-20).backward()  # noqa: E731
    return Loop(net, step, lambda: bool(net[1].weight.any()))


@still("underflow", at="0", where="1", operation="TanhBackward0")
def tanh_that_is_only_nearly_flat() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=5.0), nn.Tanh()), batch(3, 4)
    step = lambda: (net(x).sum() * 1e-30 * 1e-13).backward()  # noqa: E731
    return Loop(net, step, lambda: bool((net(x) < 1).all()))


@still("underflow", at="0", where="1", operation="SigmoidBackward0")
def sigmoid_that_is_only_nearly_flat() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=-12.0), nn.Sigmoid()), batch(3, 4)
    step = lambda: (net(x).sum() * 1e-30 * 1e-13).backward()  # noqa: E731
    return Loop(net, step, lambda: bool((net(x) > 0).all()))


@still("underflow", at="0", also=("vanishing",))
def deep_chain_of_sigmoids() -> Loop:
    """Each layer shrinks the gradient: after sixty of them nothing that float32 can hold is left."""
    net = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Linear(4, 4), nn.Sigmoid())))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.3)
    x = batch(3, 4)

    def present() -> bool:
        wide = copy.deepcopy(net).double()
        wide(x.double()).sum().backward()
        size = float(wide[0].weight.grad.abs().max())
        return 0 < size < 1e-45 and bool((net[:2](x) > 0.1).all())

    return Loop(net, lambda: net(x).sum().backward(), present)


@still("underflow", at="0", also=("vanishing",))
def deep_chain_of_tanhs() -> Loop:
    net = nn.Sequential(*(layer for _ in range(40) for layer in (nn.Linear(4, 4), nn.Tanh())))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.1)
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net[:2](x).abs() < 0.9).all()))
