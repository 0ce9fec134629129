"""Functions that went flat: ReLUs that died, tanh saturated, clamps out of range."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import batch, filled
from tests.zoo.still import Loop, still


@still("dead-relu", at="0", where="1", dead_units=16, units=16, share=1.0)
def mlp() -> Loop:
    net = nn.Sequential(filled(nn.Linear(8, 16), bias=-100.0), nn.ReLU(), nn.Linear(16, 2))
    x = batch(5, 8)
    return Loop(net, lambda: net(x).square().mean().backward(), lambda: bool((net[0](x) < 0).all()))


@still("dead-relu", at="0", where="2", dead_units=6, units=6)
def cnn_with_batch_norm() -> Loop:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), filled(nn.BatchNorm2d(6), bias=-50.0), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)
    )
    x = batch(4, 3, 6, 6)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[:3](x).any())


@still("dead-relu", at="1", where="2")
def second_of_three() -> Loop:
    """Stacked: everything below the dead ReLU is silent too, and the tanh below it is saturated as well."""
    net = nn.Sequential(
        nn.Sequential(filled(nn.Linear(4, 8), bias=40.0), nn.Tanh()),
        filled(nn.Linear(8, 8), bias=-90.0),
        nn.ReLU(),
        nn.Linear(8, 1),
    )
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[:3](x).any())


@still("dead-relu", at="0", where="2")
def below_both() -> Loop:
    """The layer below a saturated tanh *and* a dead ReLU: no gradient reaches the tanh, so the ReLU is the cause."""
    net = nn.Sequential(
        nn.Sequential(filled(nn.Linear(4, 8), bias=40.0), nn.Tanh()),
        filled(nn.Linear(8, 8), bias=-90.0),
        nn.ReLU(),
        nn.Linear(8, 1),
    )
    x = batch(3, 4)
    return Loop(
        net, lambda: net(x).sum().backward(), lambda: bool((net[0](x) == 1).all()) and not net[:3](x).any()
    )


class Functional(nn.Module):
    """Activations as functions, not modules."""

    def __init__(self, bias: float, function: object) -> None:
        super().__init__()
        self.first = filled(nn.Linear(4, 8), bias=bias)
        self.last = nn.Linear(8, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


@still("dead-relu", at="body.first", where="body", share=1.0)
def functional_relu() -> Loop:
    body = Functional(-80.0, torch.relu)
    x = batch(3, 4)
    return Loop({"body": body}, lambda: body(x).mean().backward(), lambda: bool((body.first(x) < 0).all()))


@still("dead-relu", at="layer.linear1", where="layer")
def transformer_feed_forward() -> Loop:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    filled(layer.linear1, bias=-99.0)
    x = batch(2, 3, 8)
    return Loop(
        {"layer": layer}, lambda: layer(x).square().sum().backward(), lambda: bool((layer.linear1(x) < 0).all())
    )


@still("dead-relu", at="first", where="(root)")
def gelu_far_left() -> Loop:
    net = Functional(-60.0, functional.gelu)
    x = batch(3, 4)
    return Loop(net, lambda: net(x).mean().backward(), lambda: not functional.gelu(net.first(x)).any())


@still("dead-relu", at="first", where="(root)")
def leaky_without_slope() -> Loop:
    net = Functional(-60.0, lambda x: functional.leaky_relu(x, 0.0))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).mean().backward(), lambda: bool((net.first(x) < 0).all()))


@still("dead-relu", at="net", where="ReluBackward0")
def relu_on_the_output_outside() -> Loop:
    net, x = filled(nn.Linear(4, 2), bias=-50.0), batch(3, 4)
    return Loop({"net": net}, lambda: torch.relu(net(x)).mean().backward(), lambda: bool((net(x) < 0).all()))


@still("dead-relu", at="first", where="(root)")
def in_place_relu() -> Loop:
    net = Functional(-60.0, lambda x: functional.relu(x, inplace=True))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).mean().backward(), lambda: bool((net.first(x) < 0).all()))


@still("dead-relu", at="embedding", where="act")
def embedding_below() -> Loop:
    net = nn.ModuleDict(
        {"embedding": nn.Embedding(7, 4), "lin": filled(nn.Linear(4, 4), bias=-50.0), "act": nn.ReLU()}
    )
    tokens = torch.randint(7, (2, 3))
    forward = lambda: net["act"](net["lin"](net["embedding"](tokens)))  # noqa: E731
    head = nn.Linear(4, 1)
    return Loop(net, lambda: head(forward()).sum().backward(), lambda: not forward().any())


@still("saturated-tanh", at="0", where="1", share_beyond_9=1.0, largest_slope=0.0, operation="TanhBackward0")
def mlp_tanh() -> Loop:
    net = nn.Sequential(filled(nn.Linear(8, 16), bias=30.0), nn.Tanh(), nn.Linear(16, 2))
    x = batch(5, 8)
    return Loop(net, lambda: net(x).square().mean().backward(), lambda: bool((net[0](x) > 9.1).all()))


class Policy(nn.Module):
    """The seed's actor: its tanh is a function inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.last = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.hidden(x)))


class ActorCritic:
    """The actor's CNN feeds the Q function straight, around the saturated policy: the seed's fault."""

    def __init__(self) -> None:
        self.cnn = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(64, 6))
        self.policy = Policy()
        nn.init.constant_(self.policy.last.bias, 25.0)
        self.q = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        self.picture = batch(3, 1, 6, 6)

    def actor_step(self) -> None:
        features = self.cnn(self.picture)
        (-self.q(torch.cat([features, self.policy(features)], dim=1)).mean()).backward()

    def modules(self) -> dict[str, nn.Module]:
        return {"actor_cnn": self.cnn, "actor_mlp": self.policy}


@still("saturated-tanh", at="actor_mlp", where="actor_mlp", share_beyond_9=1.0)
def actor_critic() -> Loop:
    agent = ActorCritic()
    return Loop(
        agent.modules(), agent.actor_step, lambda: bool((agent.policy(agent.cnn(agent.picture)) == 1).all())
    )


@still("saturated-tanh", at="rnn", where="rnn")
def rnn() -> Loop:
    net = nn.RNN(3, 5, batch_first=True)
    nn.init.constant_(net.bias_ih_l0, 90.0)
    head, x = nn.Linear(5, 1), batch(2, 4, 3)
    return Loop(
        {"rnn": net, "head": head},
        lambda: head(net(x)[0][:, -1]).sum().backward(),
        lambda: bool((net(x)[0] == 1).all()),
    )


@still("saturated-tanh", at="0", where="1")
def bfloat16_autocast() -> Loop:
    net = nn.Sequential(filled(nn.Linear(8, 8), bias=30.0), nn.Tanh(), nn.Linear(8, 2))
    x = batch(5, 8)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(x).float().square().mean()
        loss.backward()

    return Loop(net, step, lambda: bool((net[:2](x) == 1).all()))


@still("saturated-tanh", at="0", where="1")
def double() -> Loop:
    net = nn.Sequential(filled(nn.Linear(8, 8), bias=30.0), nn.Tanh(), nn.Linear(8, 2)).double()
    x = batch(5, 8).double()
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net[:2](x) == 1).all()))


@still("saturated-tanh", at="0.0", where="0.1")
def both_signs() -> Loop:
    inner = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh())
    with torch.no_grad():
        inner[0].weight.copy_(torch.eye(8) * 1000)
    net = nn.Sequential(inner, nn.Linear(8, 1))
    x = torch.where(torch.rand(6, 8) > 0.5, 1.0, -1.0)
    return Loop(
        net,
        lambda: net(x).sum().backward(),
        lambda: bool((inner(x).abs() == 1).all()) and bool((inner(x) < 0).any()),
    )


@still("clamped", at="0", where="1", share_above=1.0)
def relu6() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 4), bias=70.0), nn.ReLU6(), nn.Linear(4, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net[:2](x) == 6).all()))


@still("clamped", at="0", where="1", share_below=1.0)
def hardtanh() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 4), bias=-70.0), nn.Hardtanh(), nn.Linear(4, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net[:2](x) == -1).all()))


@still("clamped", at="first", where="(root)")
def clamp_of_an_action() -> Loop:
    net = Functional(20.0, lambda x: x.clamp(-1, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net.first(x) > 1).all()))


@still("clamped", at="first", where="(root)")
def clamp_by_tensors() -> Loop:
    net = Functional(20.0, lambda x: torch.clamp(x, -torch.ones(8), torch.ones(8)))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net.first(x) > 1).all()))


@still("clamped", at="policy", where="ClampBackward1")
def ppo_ratio() -> Loop:
    """Every ratio is beyond the clip range and its advantage agrees: PPO leaves all of it out."""
    policy, x = nn.Linear(4, 1), batch(6, 4)
    old = (policy(x) - 2.0).detach()
    advantage = torch.rand(6, 1) + 0.1

    def step() -> None:
        ratio = (policy(x) - old).exp()
        (-torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()).backward()

    return Loop({"policy": policy}, step, lambda: bool(((policy(x) - old).exp() > 1.2).all()))


@still("clamped", at="log_std")
def log_std_at_its_limit() -> Loop:
    net = nn.Module()
    net.mean = nn.Linear(4, 2)
    net.log_std = nn.Parameter(torch.full((2,), -40.0))
    x, wanted = batch(5, 4), batch(5, 2)

    def step() -> None:
        std = net.log_std.clamp(-20, 2).exp()
        ((net.mean(x) - wanted).square() + std).mean().backward()

    return Loop(net, step, lambda: bool((net.log_std < -20).all()))
