"""Loops rebuilt from public bug reports: numbers that are none, and outputs that depend on nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.faults_nonfinite import GoingBack, bad
from tests.zoo.nets import norm, optimized, silent
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


@fault_and_repair(
    Verdict("nonfinite", "nonfinite-op|nonfinite-loss", remedy=("mask|target|data",)), also=("zero", "nonfinite")
)
def regression_on_targets_with_gaps(run: Run, fixed: bool) -> None:
    """``torch.where`` leaves the NaN of the targets out of the loss; backward makes 0 x NaN of it."""
    net = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 4))
    truth = torch.randn(12, 4)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    with run.track(optimizer, net):
        for step in run.steps(25):
            x = torch.randn(32, 12)
            y = x @ truth
            if step > 14:  # from here on one station has gaps
                y[torch.rand(32, 4) < 0.1] = float("nan")
            predicted, known = net(x), ~torch.isnan(y)
            if fixed:
                loss = (predicted - torch.where(known, y, predicted.detach())).pow(2).sum() / known.sum()
            else:
                loss = torch.where(known, (predicted - y).pow(2), torch.zeros_like(y)).sum() / known.sum()
            optimizer.zero_grad()
            loss.backward()
            run.fault(bad(net))
            optimizer.step()


class Convolution(nn.Module):
    """One layer of an equivariant graph net, as EGNN has it."""

    def __init__(self, size: int, fixed: bool) -> None:
        super().__init__()
        self.edge_mlp = nn.Sequential(nn.Linear(2 * size + 1, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU())
        self.node_mlp = nn.Sequential(nn.Linear(2 * size, size), nn.SiLU(), nn.Linear(size, size))
        self.coord_mlp = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, 1, bias=False))
        self.fixed = fixed

    def forward(self, h: Tensor, x: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        between = x[source] - x[target]
        radial = between.square().sum(1, keepdim=True)
        unit = between / ((radial + 1e-8).sqrt() if self.fixed else radial.sqrt() + 1e-30)
        message = self.edge_mlp(torch.cat([h[source], h[target], radial], 1))
        x = x + torch.zeros_like(x).index_add(0, target, unit * self.coord_mlp(message)) / 4
        return self.node_mlp(torch.cat([h, torch.zeros_like(h).index_add(0, target, message)], 1)), x


class GraphNet(nn.Module):
    def __init__(self, fixed: bool, size: int = 8) -> None:
        super().__init__()
        self.embed, self.readout = nn.Linear(4, size), nn.Linear(size, 1)
        self.layers = nn.ModuleList(Convolution(size, fixed) for _ in range(2))

    def forward(self, f: Tensor, x: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        h = self.embed(f)
        for layer in self.layers:
            h, x = layer(h, x, source, target)
        return self.readout(h.mean(0)), x


def edges(nodes: int) -> Tensor:
    """From each node to each other one."""
    return torch.tensor([(i, j) for i in range(nodes) for j in range(nodes) if i != j]).T


@fault_and_repair(
    Verdict(
        "nonfinite",
        "nonfinite-op",
        where=("layers.0", "layers.1", "SqrtBackward0"),
        remedy=("epsilon|eps",),
        recurs=True,
    ),
    also=("zero",),
)
def two_atoms_at_the_same_place(run: Run, fixed: bool) -> None:
    """The slope of a square root at 0 is infinite, 0 times that is NaN, and the loss is finite."""
    net = GraphNet(fixed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    going_back = GoingBack(net, optimizer)
    source, target = edges(5)
    with run.track(optimizer, net):
        for step in run.steps(30):
            f, x = torch.randn(5, 4), torch.randn(5, 3)
            if step % 12 == 0:
                x[1], f[1] = x[0], f[0]
            energy, moved = net(f, x, source, target)
            loss = (energy - x.norm(dim=1).mean()).pow(2).sum() + (moved - x.roll(1, 0)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            run.fault(bad(net))
            going_back.step()


@fault_and_repair(
    Verdict("nonfinite", "nonfinite-weights", remedy=("eps|rate|optimizer|update",)), also=("zero", "nonfinite")
)
def half_weights_and_the_epsilon_of_adam(run: Run, fixed: bool) -> None:
    """1e-8 is 0 in float16: finite gradients make an infinite update."""
    backbone = nn.Sequential(nn.Linear(32, 32), nn.ReLU()).half().requires_grad_(False)
    features = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32)).half()
    head = nn.Linear(32, 4).half()
    eps = 1e-4 if fixed else 1e-8
    optimizer = torch.optim.Adam([*features.parameters(), *head.parameters()], 1e-4, eps=eps)
    with run.track(optimizer, {"features": features, "head": head}):
        for _ in run.steps(25):
            x, y = torch.randn(16, 16).half(), torch.randint(4, (16,))
            loss = functional.cross_entropy(head(backbone(features(x))).float(), y)
            optimizer.zero_grad()
            loss.backward()
            run.fault(bad(features) and not all(bool(torch.isfinite(p).all()) for p in features.parameters()))
            optimizer.step()


class Pooled(nn.Module):
    """Tokens pooled by a gate, whose score is normalised over its one element."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.tokens, self.scorer = nn.Sequential(nn.Linear(6, 32), nn.GELU()), nn.Linear(32, 1)
        self.norm, self.head = nn.Identity() if fixed else nn.LayerNorm(1), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x)
        return self.head((torch.sigmoid(self.norm(self.scorer(h))) * h).mean(1))  # type: ignore[no-any-return]


@fault_and_repair(
    Verdict("zero", "constant", module="scorer", where=("norm",), remedy=("norm",)), also=("vanishing",)
)
def layer_norm_of_one_element(run: Run, fixed: bool) -> None:
    """Its output is its bias, whatever comes in; what it hands on is 0 but for rounding."""
    net = Pooled(fixed)

    def loss() -> Tensor:
        x = torch.randn(32, 7, 6)
        y = (x[:, :, 0].mean(1) > 0).long() + (x[:, :, 1].mean(1) > 0.2).long()
        return functional.cross_entropy(net(x), y)

    optimized(run, net, loss, lambda: norm(net.scorer) < 1e-6 * norm(net.head))


class Moving(nn.Module):
    """An equivariant layer that looks up both ends of an edge by ``edges[0]`` and ``edges[other]``."""

    def __init__(self, other: int, size: int = 8) -> None:
        super().__init__()
        self.embed, self.other = nn.Linear(4, size), other
        self.edge_mlp = nn.Sequential(nn.Linear(2 * size + 1, size), nn.SiLU())
        self.coord_mlp = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, 1))
        self.node_mlp = nn.Linear(2 * size, 1)

    def forward(self, f: Tensor, x: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        h = self.embed(f)
        between = x[ends[0]] - x[ends[self.other]]
        m = self.edge_mlp(torch.cat([h[ends[0]], h[ends[1]], torch.norm(between, dim=1, keepdim=True)], 1))
        moved = x + torch.zeros_like(x).index_add(0, ends[0], between * self.coord_mlp(m))
        return self.node_mlp(torch.cat([h, torch.zeros_like(h).index_add(0, ends[0], m)], 1)), moved


@fault_and_repair(Verdict("zero", "zero-factor", module="coord_mlp", remedy=("factor|0|zero",)))
def coordinates_of_the_same_node(run: Run, fixed: bool) -> None:
    """Both ends of an edge are indexed alike: each displacement is 0, and what is multiplied by it learns nothing."""
    net, ends = Moving(1 if fixed else 0), edges(6)

    def loss() -> Tensor:
        f, x = torch.randn(6, 4), torch.randn(6, 3)
        energy, moved = net(f, x, ends)
        wanted = (x - x.mean(0)) * 1.1
        return (energy - f.sum(1, keepdim=True)).pow(2).mean() + (moved - wanted).pow(2).mean()

    optimized(run, dict(net.named_children()), loss, lambda: silent(net.coord_mlp) and norm(net.edge_mlp) > 0)
