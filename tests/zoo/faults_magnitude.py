"""Norms that explode, grow without end, or vanish."""

from __future__ import annotations

from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import convolutions, mlp, norm, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


def above(norms: list[float], factor: float) -> bool:
    """The last norm is so many times the median of those before it, of which there are 20 at least."""
    return len(norms) > 20 and norms[-1] > factor * median(norms[:-1])


@fault(Verdict("explosion"))
def one_outlier_in_the_data(run: Run) -> None:
    """A target that lacks its decimal point, in one batch."""
    net = convolutions(outputs=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    norms: list[float] = []
    with run.track(optimizer, net):
        for step in run.steps(45):
            images, target = torch.randn(8, 1, 6, 6), torch.randn(8, 1)
            if step == 31:
                target[0] = 1e5
            trained(optimizer, lambda: functional.mse_loss(net(images), target))  # noqa: B023
            norms.append(norm(net))
            run.fault(above(norms, 100))
            optimizer.step()


@fault(Verdict("explosion"), also=("growth",))
def learning_rate_that_warms_up_too_far(run: Run) -> None:
    """The schedule ends at a rate that makes the iteration diverge."""
    net = mlp(6, 16, 1, nn.Identity)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    norms: list[float] = []
    with run.track(optimizer, net):
        for step in run.steps(45):
            optimizer.param_groups[0]["lr"] = 0.01 if step < 30 else 0.7
            x = torch.randn(32, 6)
            trained(optimizer, lambda: (net(x) - x.sum(1, keepdim=True)).square().mean())  # noqa: B023
            norms.append(norm(net))
            run.fault(above(norms, 100))
            optimizer.step()
            if norms[-1] > 1e6:
                break


@fault(Verdict("explosion"), also=("growth", "zero", "vanishing"))
def recurrent_chain_with_large_weights(run: Run) -> None:
    """A linear recurrence whose weight has a spectral radius of 3, over 40 steps in time: above 1e8 at once."""
    cell, out = nn.Linear(4, 4), nn.Linear(4, 1)
    with torch.no_grad():
        cell.weight.copy_(3.0 * torch.eye(4))
    optimizer = torch.optim.SGD([*cell.parameters(), *out.parameters()], lr=1e-30)
    with run.track(optimizer, {"cell": cell, "out": out}):
        for _ in run.steps(15):
            hidden = torch.randn(8, 4)

            def loss() -> Tensor:
                state = hidden  # noqa: B023
                for _ in range(40):
                    state = cell(state)
                return out(state).mean()

            trained(optimizer, loss)
            run.fault(1e8 < norm(cell) < float("inf"))
            optimizer.step()


@fault(Verdict("growth"), also=("explosion",))
def wasserstein_critic_without_a_constraint(run: Run) -> None:
    """Nothing bounds the critic: a deep linear net, whose scores and gradients feed each other."""
    critic = nn.Sequential(
        nn.Linear(4, 16), nn.LeakyReLU(0.5), nn.Linear(16, 16), nn.LeakyReLU(0.5), nn.Linear(16, 1)
    )
    d = torch.optim.SGD(critic.parameters(), lr=0.005)
    norms: list[float] = []
    with run.track({"optimizer": d}, {"critic": critic}):
        for _ in run.steps(60):
            real, made = torch.randn(32, 4) + 2.0, torch.randn(32, 4) - 2.0
            trained(d, lambda: (critic(made) - critic(real)).mean())  # noqa: B023
            norms.append(norm(critic))
            run.fault(len(norms) >= 25 and grows(norms[-25:]))
            if norms[-1] > 1e5:
                break
            d.step()


def grows(norms: list[float]) -> bool:
    """Three doublings from the first fifth to the last, each fifth above the one before."""
    fifth = len(norms) // 5
    middles = [median(norms[i * fifth : (i + 1) * fifth]) for i in range(5)]
    return middles == sorted(middles) and middles[-1] > 8 * middles[0]


@fault(Verdict("growth", optimizer="critic"), also=("explosion",))
def bootstrapped_values_that_feed_themselves(run: Run) -> None:
    """The target is the critic's own value, 1.2 times: with no target network and a discount above 1."""
    q = mlp(4, 16, 1, nn.ReLU)
    critic = torch.optim.SGD(q.parameters(), lr=0.02)
    norms: list[float] = []
    with run.track({"critic": critic}, {"q": q}):
        for _ in run.steps(80):
            state = torch.rand(32, 4)
            with torch.no_grad():
                target = 0.1 + 2.0 * q(torch.rand(32, 4))
            trained(critic, lambda: functional.mse_loss(q(state), target))  # noqa: B023
            norms.append(norm(q))
            run.fault(len(norms) >= 25 and grows(norms[-25:]))
            if norms[-1] > 1e6:
                break
            critic.step()


# So have the layers behind it, somewhat less.
@fault(Verdict("vanishing", "unknown", module="first", where=("first",)), also=("vanishing",))
def deep_sigmoid_net(run: Run) -> None:
    """Twelve layers of sigmoids: what reaches the first one is below 1e-7, the last one has a norm of about 1."""
    first = nn.Linear(6, 6)
    rest = nn.Sequential(*(layer for _ in range(11) for layer in (nn.Sigmoid(), nn.Linear(6, 6))))
    optimizer = torch.optim.SGD([*first.parameters(), *rest.parameters()], lr=0.01)
    with run.track(optimizer, {"first": first, "rest": rest}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (rest(first(x)) - 1).square().mean())  # noqa: B023
            run.fault(0 < norm(first) < 1e-7 and norm(rest) > 1e-3)
            optimizer.step()


@fault(Verdict("vanishing", "saturated-tanh", module="policy", optimizer="actor", where=("TanhBackward0",)))
def almost_saturated_policy(run: Run) -> None:
    """The pre-activations are near 9: tanh still has a slope, of 1e-8."""
    body, policy = convolutions(), nn.Linear(6, 2)
    with torch.no_grad():
        policy.weight.mul_(0.01)
        policy.bias.fill_(8.6)
    actor = torch.optim.SGD([*body.parameters(), *policy.parameters()], lr=0.01)
    with run.track({"actor": actor}, {"body": body, "policy": policy}):
        for _ in run.steps(25):
            features = body(torch.randn(8, 1, 6, 6))
            before = policy(features)
            trained(actor, lambda: 1e-1 * torch.tanh(before).mean() + features.square().mean())  # noqa: B023
            largest = float(before.detach().abs().max())
            run.fault(8.5 < largest < 9 and 0 < norm(policy) < 1e-7)
            actor.step()


@fault(Verdict("vanishing", "unknown", module="words"))
def early_words_of_a_long_sequence(run: Run) -> None:
    """A plain RNN with small recurrent weights, read at its end: the first word's embedding gets next to nothing."""
    words, rnn, head = nn.Embedding(10, 4), nn.RNN(4, 6, batch_first=True), nn.Linear(6, 10)
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(0.1)
    modules = {"words": words, "rnn": rnn, "head": head}
    optimizer = torch.optim.SGD([p for m in modules.values() for p in m.parameters()], lr=0.01)
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            tokens = torch.randint(10, (4, 12))
            x = words(tokens)
            x = torch.cat([x[:, :1], torch.zeros(4, 11, 4)], 1)
            trained(optimizer, lambda: functional.cross_entropy(head(rnn(x)[0][:, -1]), tokens[:, 0]))  # noqa: B023
            run.fault(0 < norm(words) < 1e-7 and norm(head) > 1e-3)
            optimizer.step()
