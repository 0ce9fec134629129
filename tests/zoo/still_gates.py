"""Gates and softmaxes that went flat, in nets, cells and attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import batch, filled
from tests.zoo.still import Loop, still


@still("saturated-sigmoid", at="0", where="1", share_at_0=1.0)
def shut_gate() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 4), bias=-300.0), nn.Sigmoid(), nn.Linear(4, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[:2](x).any())


@still("saturated-sigmoid", at="0", where="1", share_at_1=1.0)
def open_gate() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 4), bias=60.0), nn.Sigmoid(), nn.Linear(4, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net[:2](x) == 1).all()))


@still("saturated-sigmoid", at="0", where="1")
def silu_far_left() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 4), bias=-300.0), nn.SiLU(), nn.Linear(4, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((torch.sigmoid(net[0](x)) == 0).all()))


@still("saturated-sigmoid", at="0", where="1")
def glu_shut() -> Loop:
    net = nn.Sequential(nn.Linear(4, 8), nn.GLU(), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].bias[4:] = -400.0
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not torch.sigmoid(net[0](x)[:, 4:]).any())


@still("saturated-sigmoid", at="lstm", where="lstm")
def lstm_output_gate() -> Loop:
    net = nn.LSTM(3, 5, batch_first=True)
    with torch.no_grad():
        net.bias_ih_l0[15:] = -500.0
    head, x = nn.Linear(5, 1), batch(2, 4, 3)
    return Loop({"lstm": net, "head": head}, lambda: head(net(x)[0]).sum().backward(), lambda: not net(x)[0].any())


@still("saturated-sigmoid", at="lstm", where="lstm")
def lstm_in_layers_and_both_directions() -> Loop:
    net = nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("bias_ih"):
                parameter[15:] = -500.0
    x = batch(2, 4, 3)
    return Loop({"lstm": net}, lambda: net(x)[0].sum().backward(), lambda: not net(x)[0].any())


@still("saturated-sigmoid", at="generator", where="critic.1")
def generator_against_a_sure_critic() -> Loop:
    """The GAN loss that saturates: log(1 - D(G(z))) while D is sure."""
    generator, critic = nn.Linear(2, 4), nn.Sequential(filled(nn.Linear(4, 1), bias=-200.0), nn.Sigmoid())
    noise = batch(5, 2)
    step = lambda: torch.log(1 - critic(generator(noise))).mean().backward()  # noqa: E731
    return Loop({"generator": generator, "critic": critic}, step, lambda: not critic(generator(noise)).any())


@still("saturated-sigmoid", at="cell", where="cell")
def lstm_cell() -> Loop:
    net = nn.LSTMCell(3, 5)
    with torch.no_grad():
        net.bias_ih[15:] = -500.0
    head, x = nn.Linear(5, 1), batch(2, 3)
    return Loop({"cell": net, "head": head}, lambda: head(net(x)[0]).sum().backward(), lambda: not net(x)[0].any())


@still("saturated-sigmoid", at="gru", where="gru")
def gru_update_gate() -> Loop:
    """The update gate is 1 throughout: the state is handed on and nothing is written to it."""
    net = nn.GRU(3, 5, batch_first=True)
    with torch.no_grad():
        net.bias_ih_l0[:10] = 500.0
    head, x = nn.Linear(5, 1), batch(2, 4, 3)
    return Loop({"gru": net, "head": head}, lambda: head(net(x)[0]).sum().backward(), lambda: not net(x)[0].any())


class Attention(nn.Module):
    """One head, written out."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))
        self.scale = scale

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = self.query(x) @ self.key(x).mT * self.scale
        if mask is not None:
            scores = scores.masked_fill(mask, float("-inf"))
        return scores.softmax(-1) @ self.value(x)


@still("saturated-sigmoid", at="query", where="(root)", share_one_hot=1.0)
def attention_scores_too_large() -> Loop:
    net, x = Attention(1e7), batch(2, 4, 4)
    present = lambda: bool(((net.query(x) @ net.key(x).mT * 1e7).softmax(-1).amax(-1) == 1).all())  # noqa: E731
    return Loop(net, lambda: net(x).square().sum().backward(), present)


class Fused(Attention):
    """The same by torch's own fused function."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))


@still("zero-weight", at="query", where="(root)")
def fused_attention_with_keys_from_zero() -> Loop:
    net, x = Fused(1.0), batch(2, 3, 4, 4)
    filled(net.key, weight=0.0, bias=0.0)
    return Loop(net, lambda: net(x).square().sum().backward(), lambda: not net.key(x).any())


@still("constant", at="query", where="(root)")
def attention_over_one_token() -> Loop:
    net, x = Attention(1.0), batch(2, 1, 4)
    return Loop(net, lambda: net(x).square().sum().backward(), lambda: x.shape[1] == 1)
