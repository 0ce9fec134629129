"""Products with a zero factor: weights and gates of zero, inputs that are all zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.nets import batch, filled
from tests.zoo.still import Loop, still


@still("zero-weight", at="0", where="2", share_of_zeros=1.0)
def last_layer_from_zero() -> Loop:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), filled(nn.Linear(8, 2), weight=0.0))
    x = batch(3, 4)
    return Loop(net, lambda: (net(x) - 1).square().mean().backward(), lambda: not net[2].weight.any())


@still("zero-weight", at="0", where="2")
def convolution_from_zero() -> Loop:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.LeakyReLU(), filled(nn.Conv2d(3, 2, 3), weight=0.0))
    x = batch(2, 1, 7, 7)
    return Loop(net, lambda: (net(x) - 1).square().mean().backward(), lambda: not net[2].weight.any())


@still("zero-weight", at="conv", where="norm")
def residual_norm_from_zero() -> Loop:
    """ResNet's zero_init_residual: the branch is silent at the first step."""
    conv, norm = nn.Conv2d(3, 3, 3, padding=1), filled(nn.BatchNorm2d(3), weight=0.0)
    x = batch(2, 3, 5, 5)
    return Loop(
        {"conv": conv, "norm": norm},
        lambda: (x + norm(conv(x))).square().mean().backward(),
        lambda: not norm.weight.any(),
    )


@still("zero-weight", at="0", where="1")
def layer_norm_from_zero() -> Loop:
    net = nn.Sequential(nn.Linear(4, 8), filled(nn.LayerNorm(8), weight=0.0), nn.Linear(8, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[1].weight.any())


class Block(nn.Module):
    """x + gate * f(x), as LayerScale and ReZero have it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.inner(x)


@still("zero-weight", at="block.inner", where="block")
def rezero_gate() -> Loop:
    block, x = Block(), batch(3, 4)
    return Loop({"block": block}, lambda: block(x).square().sum().backward(), lambda: not block.gate.any())


@still("zero-weight", at="inner")
def adaptive_gate_from_zero() -> Loop:
    """AdaLN-zero: the gate is computed by a layer that starts from zero."""

    class Adaptive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.to_gate = filled(nn.Linear(4, 4), weight=0.0, bias=0.0)

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return x + self.to_gate(condition) * self.inner(x)

    net, x, condition = Adaptive(), batch(3, 4), batch(3, 4)
    return Loop(net, lambda: net(x, condition).square().sum().backward(), lambda: not net.to_gate(condition).any())


@still("zero-weight", at="down", where="up")
def low_rank_adapter() -> Loop:
    """LoRA: B starts from zero, so A gets nothing at the first step."""
    down, up, x = nn.Linear(6, 2, bias=False), filled(nn.Linear(2, 6, bias=False), weight=0.0), batch(3, 6)
    return Loop(
        {"down": down, "up": up}, lambda: (x + up(down(x))).square().sum().backward(), lambda: not up.weight.any()
    )


@still("zero-weight", at="policy", where="q")
def critic_that_ignores_the_action() -> Loop:
    """The weights for a part of what was joined are zero: the others get their gradient through the same layer."""
    policy, encoder, q, x = nn.Linear(4, 2), nn.Linear(4, 3), nn.Linear(5, 1), batch(3, 4)
    with torch.no_grad():
        q.weight[:, 3:] = 0.0
    step = lambda: q(torch.cat([encoder(x), policy(x)], dim=1)).mean().backward()  # noqa: E731
    return Loop({"policy": policy, "encoder": encoder, "q": q}, step, lambda: not q.weight[:, 3:].any())


@still("zero-weight", at="policy", where="q")
def square_critic_over_time() -> Loop:
    """The same with as many outputs as inputs, and with a dimension of time that the layer flattens."""
    policy, encoder, q, x = nn.Linear(4, 2), nn.Linear(4, 3), nn.Linear(5, 5), batch(3, 6, 4)
    with torch.no_grad():
        q.weight[:, 3:] = 0.0
    step = lambda: q(torch.cat([encoder(x), policy(x)], dim=-1)).square().mean().backward()  # noqa: E731
    return Loop({"policy": policy, "encoder": encoder, "q": q}, step, lambda: not q.weight[:, 3:].any())


@still("zero-weight", at="0.parametrizations.weight.original1")
def weight_norm_of_zero() -> Loop:
    net, x = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 1)), batch(3, 4)
    with torch.no_grad():
        net[0].parametrizations.weight.original0.zero_()
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[0].weight.any())


@still("zero-input", at="0.weight", where="0")
def inputs_never_filled() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), torch.zeros(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not x.any())


@still("zero-input", at="0.weight", where="0")
def black_pictures() -> Loop:
    net, x = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(27, 1)), torch.zeros(2, 1, 5, 5)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not x.any())


@still("zero-input", at="2.weight", where="2")
def above_a_dead_relu() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 8), bias=-70.0), nn.ReLU(), nn.Linear(8, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[:2](x).any())


@still("zero-input", at="token_types.weight")
def scale_of_zeros() -> Loop:
    net = nn.Module()
    net.token_types = nn.Linear(3, 4, bias=False)
    net.words = nn.Linear(3, 4)
    x, types = batch(2, 5, 3), torch.zeros(2, 5, 3)
    return Loop(
        net, lambda: (net.words(x) + net.token_types(types)).square().sum().backward(), lambda: not types.any()
    )


@still("zero-weight", at="body", where="last", share_of_zeros=1.0)
def frozen_layer_of_zeros() -> Loop:
    """Its weight asks for no gradient, so that it is no node of the graph: a constant, and a weight all the same."""
    body, last, x = nn.Linear(4, 4), filled(nn.Linear(4, 2), weight=0.0), batch(3, 4)
    last.weight.requires_grad_(False)
    step = lambda: (last(body(x)) - 1).square().mean().backward()  # noqa: E731
    return Loop({"body": body, "last": last}, step, lambda: not last.weight.any())


@still("zero-input", at="lstm.weight_ih_l0", where="lstm")
def lstm_of_zeros() -> Loop:
    net, x = nn.LSTM(3, 5, batch_first=True), torch.zeros(2, 4, 3)
    return Loop({"lstm": net}, lambda: net(x)[0].sum().backward(), lambda: not x.any())
