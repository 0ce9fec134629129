"""Usual recipes of graphs, tables, equations and agents, small."""

from __future__ import annotations

import math

import torch
from stable_baselines3 import DQN
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import MultiStepLR

from tests.healthy.agents import _Returns
from tests.healthy.fitted import fitted, mlp
from tests.healthy.run import Run

__all__ = ["attention_on_graphs", "convolution_on_graph", "dqn", "factorised", "heat", "meta", "tasks"]


class Graph(nn.Module):
    """Two layers of Kipf and Welling's, with dropout."""

    def __init__(self, entering: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(entering, 16), nn.Linear(16, classes)

    def forward(self, x: Tensor, mixing: Tensor) -> Tensor:
        h = functional.dropout(torch.relu(mixing @ self.first(x)), 0.5, self.training)
        return mixing @ self.second(h)  # type: ignore[no-any-return]


def communities(nodes: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, normalised adjacency and class of each node; those of one class are linked more often."""
    labels = torch.arange(nodes) % classes
    linked = torch.rand(nodes, nodes) < torch.where(labels[:, None] == labels, 0.15, 0.01)
    linked = (linked | linked.T).fill_diagonal_(True).float()
    root = linked.sum(1).rsqrt()
    features = functional.one_hot(labels, classes) + 1.5 * torch.randn(nodes, classes)
    return features, root[:, None] * linked * root, labels


def convolution_on_graph(run: Run) -> None:
    """Full batch, few labels, weight decay: the loss goes to next to nothing."""
    x, mixing, labels = communities(120, 4)
    model, known = Graph(4, 4), torch.arange(120) < 40
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=5e-4)
    fitted(run, model, lambda: functional.cross_entropy(model(x, mixing)[known], labels[known]), optimizer)


class Attention(nn.Module):
    """One layer of graph attention (Velickovic et al. 2018) over a batch of graphs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lift, self.source, self.target = nn.Linear(width, width), nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, x: Tensor, linked: Tensor) -> Tensor:
        h = self.lift(x)
        scores = functional.leaky_relu(self.source(h) + self.target(h).mT, 0.2)
        return functional.elu(scores.masked_fill(~linked, -math.inf).softmax(-1) @ h)


def attention_on_graphs(run: Run) -> None:
    """How many neighbours has the node with the most of them?"""
    enter, layers, head = nn.Linear(2, 32), nn.ModuleList(Attention(32) for _ in range(2)), nn.Linear(32, 1)
    model = nn.ModuleDict({"enter": enter, "layers": layers, "head": head})

    def loss() -> Tensor:
        linked = torch.rand(32, 10, 10) < 0.1 + 0.4 * torch.rand(32, 1, 1)
        linked = linked | linked.mT | torch.eye(10, dtype=torch.bool)
        degree = linked.sum(2, keepdim=True) / 10
        x = enter(torch.cat([degree, torch.ones_like(degree)], 2))
        for layer in layers:
            x = x + layer(x, linked)
        return functional.smooth_l1_loss(head(x.amax(1))[:, 0], degree.amax((1, 2)))

    fitted(run, model, loss, torch.optim.RAdam(model.parameters(), 2e-3))


def factorised(run: Run) -> None:
    """Ratings of users and items by two tables and Adagrad: most rows are not touched by a batch."""
    model = nn.ModuleDict({"of_users": nn.Embedding(300, 8), "of_items": nn.Embedding(200, 8)})
    taste, trait = torch.randn(300, 4), torch.randn(200, 4)

    def loss() -> Tensor:
        user, item = torch.randint(300, (128,)), torch.randint(200, (128,))
        rating = (taste[user] * trait[item]).sum(1) / 2
        return functional.mse_loss((model["of_users"](user) * model["of_items"](item)).sum(1), rating)

    for table in model.values():
        nn.init.normal_(table.weight, std=0.3)  # type: ignore[arg-type]
    fitted(run, model, loss, torch.optim.Adagrad(model.parameters(), 0.1))


def heat(run: Run) -> None:
    """A net that solves the equation of heat: its loss holds second derivatives (Raissi et al. 2019)."""
    model = mlp(2, 24, 24, 1, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)

    def loss() -> Tensor:
        at = torch.rand(128, 2).requires_grad_()
        u = model(at)
        (slope,) = torch.autograd.grad(u.sum(), at, create_graph=True)
        (second,) = torch.autograd.grad(slope[:, 0].sum(), at, create_graph=True)
        residual = slope[:, 1] - 0.1 * second[:, 0]
        x, t = torch.rand(64, 1), torch.rand(64, 1)
        start = model(torch.cat([x, torch.zeros_like(x)], 1)) - torch.sin(math.pi * x)
        ends = model(torch.cat([torch.randint(2, (64, 1)).float(), t], 1))
        return residual.square().mean() + 10 * start.square().mean() + ends.square().mean()

    fitted(run, model, loss, optimizer, schedule=MultiStepLR(optimizer, [run.steps // 2], 0.3))


def tasks(run: Run) -> None:
    """Three tasks of one body, weighed by uncertainties that are learned (Kendall et al. 2018)."""
    heads = nn.ModuleList([nn.Linear(32, 1), nn.Linear(32, 3), nn.Linear(32, 1)])
    model = nn.ModuleDict({"body": nn.Sequential(mlp(6, 32, 32), nn.ReLU()), "heads": heads})
    model.weights = nn.Parameter(torch.zeros(3))  # type: ignore[assignment]

    def loss() -> Tensor:
        x = torch.randn(64, 6)
        h = model["body"](x)
        losses = torch.stack(
            [
                functional.mse_loss(heads[0](h)[:, 0], 5 * x[:, 0] * x[:, 1]),
                functional.cross_entropy(heads[1](h), x[:, 2:5].argmax(1)),
                functional.binary_cross_entropy_with_logits(heads[2](h)[:, 0], (x[:, 5] > 0).float()),
            ]
        )
        return (losses * (-model.weights).exp() + model.weights).sum()

    fitted(run, model, loss, torch.optim.NAdam(model.parameters(), 2e-3))


def meta(run: Run) -> None:
    """MAML of second order: waves of any phase, from ten points each (Finn et al. 2017)."""
    model = mlp(1, 32, 32, 1)

    def loss() -> Tensor:
        total = torch.zeros(())
        for _ in range(4):
            phase, x = 3.14 * torch.rand(1), 6 * torch.rand(20, 1) - 3
            y = torch.sin(x + phase)
            weights = dict(model.named_parameters())
            inner = functional.mse_loss(torch.func.functional_call(model, weights, (x[:10],)), y[:10])
            slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
            fast = {n: w - 0.05 * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
            total = total + functional.mse_loss(torch.func.functional_call(model, fast, (x[10:],)), y[10:]) / 4
        return total

    fitted(run, model, loss, torch.optim.Adam(model.parameters(), 1e-3), limit=10.0)


def dqn(run: Run) -> None:
    """Stable-Baselines3's DQN on CartPole, unmodified."""
    agent = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=5e-4,
        batch_size=64,
        learning_starts=500,
        gamma=0.99,
        target_update_interval=200,
        train_freq=1,
        gradient_steps=1,
        exploration_fraction=0.3,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [64, 64]},
        seed=run.seed,
        device="cpu",
    )
    with run.track(agent.policy.optimizer, {"q": agent.q_net}):
        agent.learn(500 + run.steps, _Returns(run))
