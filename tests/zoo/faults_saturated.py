"""Tanh and sigmoid driven to their ends, where they are flat."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import convolutions, filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


def beyond(before: Tensor, limit: float = 9.1) -> bool:
    """Every pre-activation is so large that float32 has tanh at exactly 1 or -1."""
    return min(map(abs, before.detach().flatten().tolist())) > limit


@fault(
    Verdict("zero", "saturated-tanh", module="0", where=("1",), evidence=("share_beyond_9", "share_saturated")),
)
def states_in_millimetres(run: Run) -> None:
    """Inputs that nobody normalised: the first tanh layer is saturated for each of them."""
    net = mlp(6, 16, 2)
    filled(net[0], bias=0.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            x = 3000.0 * torch.ones(8, 6) + torch.randn(8, 6)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            before = functional.linear(x, net[0].weight, net[0].bias)
            run.fault(beyond(before) and silent(net[0]), share_beyond_9=1.0, share_saturated=1.0)
            optimizer.step()


class Cells(nn.Module):
    """A recurrent net written by hand over an RNNCell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.RNNCell(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(len(x), 8)
        for t in range(x.shape[1]):
            hidden = self.cell(x[:, t], hidden)
        return self.out(hidden)  # type: ignore[no-any-return]


@fault(Verdict("zero", "saturated-tanh", module="cell", where=("cell",)))
def recurrent_cell_at_its_ends(run: Run) -> None:
    net = Cells()
    nn.init.constant_(net.cell.bias_ih, 40.0)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            x = torch.randn(4, 5, 3)
            trained(optimizer, lambda: (net(x) - 3).square().mean())  # noqa: B023
            hidden, at_ends = torch.zeros(4, 8), True
            for t in range(5):
                c = net.cell
                before = functional.linear(x[:, t], c.weight_ih, c.bias_ih) + functional.linear(
                    hidden, c.weight_hh, c.bias_hh
                )
                hidden, at_ends = torch.tanh(before), at_ends and beyond(before)
            run.fault(at_ends and silent(net.cell) and norm(net.out) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "saturated-tanh", module="generator", optimizer="g", where=("generator.3",)),
)
def generator_stuck_in_black_and_white(run: Run) -> None:
    """Its last layer was scaled up: every pixel is at -1 or 1. The discriminator goes on learning."""
    generator = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 9), nn.Tanh())
    filled(generator[2], bias=50.0)
    discriminator = nn.Sequential(nn.Linear(9, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    with run.track({"g": g, "d": d}, {"generator": generator, "discriminator": discriminator}):
        for _ in run.steps(25):
            real, noise = torch.rand(8, 9) * 2 - 1, torch.randn(8, 4)
            made = generator(noise)
            d.zero_grad()
            scores = discriminator(real), discriminator(made.detach())
            (functional.softplus(-scores[0]) + functional.softplus(scores[1])).mean().backward()
            d.step()
            trained(g, lambda: functional.softplus(-discriminator(generator(noise))).mean())  # noqa: B023
            hidden = functional.leaky_relu(functional.linear(noise, generator[0].weight, generator[0].bias), 0.2)
            before = functional.linear(hidden, generator[2].weight, generator[2].bias)
            run.fault(beyond(before) and silent(generator))
            g.step()


@fault(
    Verdict("zero", "saturated-tanh", module="policy", optimizer="actor", where=("policy.3",)), also=("growth",)
)
def policy_pushed_to_its_limits(run: Run) -> None:
    """A critic that always wants more: the action runs into the end of its tanh in the course of training."""
    policy = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2), nn.Tanh())
    actor = torch.optim.SGD(policy.parameters(), lr=0.3)
    with run.track({"actor": actor}, {"policy": policy}):
        for _ in run.steps(60):
            state = torch.rand(8, 4) + 0.5
            actor.zero_grad()
            (-200.0 * policy(state).sum(1).mean()).backward()
            hidden = torch.relu(functional.linear(state, policy[0].weight, policy[0].bias))
            run.fault(beyond(functional.linear(hidden, policy[2].weight, policy[2].bias)) and silent(policy))
            actor.step()


@fault(
    Verdict("zero", "saturated-sigmoid", module="lstm", where=("lstm",)),
)
def gates_of_an_lstm_stuck(run: Run) -> None:
    """Every gate is at 0 or 1 and the candidate at its end: nothing in the layer can move."""
    lstm, head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 1)
    nn.init.constant_(lstm.bias_ih_l0, 200.0)
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"lstm": lstm, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(4, 5, 3)
            trained(optimizer, lambda: (head(lstm(x)[0][:, -1]) - 3).square().mean())  # noqa: B023
            least = functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0) - lstm.weight_hh_l0.abs().sum(1)
            run.fault(float(least.detach().min()) > 100 and silent(lstm) and norm(head) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "saturated-sigmoid", module="net", where=("probability", "SigmoidBackward0")),
)
def probabilities_at_their_ends_under_a_squared_loss(run: Run) -> None:
    net, probability = mlp(6, 8, 1, nn.ReLU), nn.Sigmoid()
    filled(net[2], bias=150.0)
    scale = nn.Linear(1, 1)
    optimizer = torch.optim.Adam([*net.parameters(), *scale.parameters()], lr=1e-3)
    modules = {"net": net, "scale": scale}
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            x, labels = torch.randn(8, 6), torch.zeros(8, 1)
            trained(optimizer, lambda: (scale(probability(net(x))) - labels).square().mean())  # noqa: B023
            hidden = torch.relu(functional.linear(x, net[0].weight, net[0].bias))
            logits = functional.linear(hidden, net[2].weight, net[2].bias)
            run.fault(float(logits.detach().min()) > 110 and silent(net) and norm(scale) > 0)
            optimizer.step()


class Attention(nn.Module):
    """One head, written out; its scores are not divided by the square root of the size, but multiplied."""

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def scores(self, x: Tensor) -> Tensor:
        return self.query(x) @ self.key(x).mT * 1e6  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.scores(x), -1) @ self.value(x)


@fault(
    Verdict("zero", "saturated-sigmoid", module="query", where=("(root)",)),
    Verdict("zero", "saturated-sigmoid", module="key", where=("(root)",)),
)
def attention_of_one_hot_rows(run: Run) -> None:
    net = Attention()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    x = torch.randn(4, 5, 6)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            trained(optimizer, lambda: (net(x) - x).square().mean())
            with torch.no_grad():
                query = functional.linear(x, net.query.weight, net.query.bias)
                key = functional.linear(x, net.key.weight, net.key.bias)
                top = (query @ key.mT * 1e6).topk(2, dim=-1).values
            apart = float((top[..., 0] - top[..., 1]).min()) > 110
            run.fault(apart and silent(net.query) and silent(net.key) and norm(net.value) > 0)
            optimizer.step()


@fault(Verdict("zero", "saturated-sigmoid", module="gate", where=("GluBackward0", "gate")))
def gate_of_a_linear_unit_shut(run: Run) -> None:
    body, gate, head = convolutions(), nn.Linear(6, 8), nn.Linear(4, 2)
    with torch.no_grad():
        gate.bias[4:] = -300.0
        gate.weight[4:] = 0.0
    parameters = [*body.parameters(), *gate.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    modules = {"body": body, "gate": gate, "head": head}
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            images = torch.randn(4, 1, 6, 6)
            features = body(images)
            trained(optimizer, lambda: (features.sum(1) + head(functional.glu(gate(features))).sum(1)).mean())  # noqa: B023
            shut = functional.linear(features, gate.weight, gate.bias)[:, 4:]
            run.fault(float(shut.detach().max()) < -200 and silent(gate) and norm(body) > 0)
            optimizer.step()
