"""Healthy loops in which some parts have no gradient, now or ever, and should not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.faults_missing import LowRank
from tests.zoo.nets import convolutions, filled, mlp, norm, silent, trained
from tests.zoo.registry import healthy
from tests.zoo.run import Run


@healthy()
def frozen_backbone_left_out(run: Run) -> None:
    backbone, head = convolutions().requires_grad_(False), nn.Linear(6, 3)
    net = nn.ModuleDict({"backbone": backbone, "head": head})
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(120):
            images, labels = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
            trained(optimizer, lambda: functional.cross_entropy(head(backbone(images)), labels))  # noqa: B023
            run.trait("the backbone is silent", silent(backbone))
            optimizer.step()


@healthy(zero="it gets a gradient that no optimizer applies: meant or forgotten, only its owner knows")
def backbone_left_out_and_not_frozen(run: Run) -> None:
    """Only the head is handed to the optimizer, and nobody sets ``requires_grad``: common, and wasteful."""
    net = nn.ModuleDict({"backbone": convolutions(), "head": nn.Linear(6, 3)})
    optimizer = torch.optim.Adam(net["head"].parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(120):
            images, labels = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
            trained(optimizer, lambda: functional.cross_entropy(net["head"](net["backbone"](images)), labels))  # noqa: B023
            run.trait("the backbone has a gradient", norm(net["backbone"]) > 0)
            optimizer.step()


@healthy(zero="the optimizer holds a module that it can never move: meant or forgotten, only its owner knows")
def frozen_backbone_in_the_optimizer(run: Run) -> None:
    backbone, head = convolutions().requires_grad_(False), nn.Linear(6, 3)
    net = nn.ModuleDict({"backbone": backbone, "head": head})
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(120):
            images, labels = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
            trained(optimizer, lambda: functional.cross_entropy(head(backbone(images)), labels))  # noqa: B023
            run.trait("the backbone is silent", silent(backbone))
            optimizer.step()


@healthy()
def frozen_batch_norms_in_a_backbone(run: Run) -> None:
    """Fine-tuning as usual: the normalisation is in evaluation mode and frozen, the convolutions learn."""
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    backbone[1].eval().requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.01)
    with run.track(optimizer, backbone):
        for _ in run.steps(100):
            images, labels = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
            trained(optimizer, lambda: functional.cross_entropy(backbone(images), labels))  # noqa: B023
            run.trait("the normalisation has no gradient", silent(backbone[1]))
            optimizer.step()


@healthy()
def heads_in_turn(run: Run) -> None:
    body = nn.Linear(6, 8)
    heads = nn.ModuleDict({"a": nn.Linear(8, 1), "b": nn.Linear(8, 1), "c": nn.Linear(8, 1)})
    optimizer = torch.optim.Adam([*body.parameters(), *heads.parameters()], lr=1e-3)
    with run.track(optimizer, {"body": body, **dict(heads.items())}):
        for step in run.steps(150):
            head = list(heads.values())[step % 3]
            trained(optimizer, lambda: head(torch.tanh(body(torch.randn(8, 6)))).square().mean())  # noqa: B023
            run.trait("two heads are silent", sum(silent(h) for h in heads.values()) == 2)
            optimizer.step()


@healthy(zero="in the first block the second head looks like one that is never called, until it is its turn")
def heads_in_blocks_of_ten(run: Run) -> None:
    """One head is trained for ten steps, then the other one: each is silent for ten steps running."""
    body, first, second = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 1), nn.Linear(6, 1)
    modules = {"body": body, "first": first, "second": second}
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    with run.track(optimizer, modules):
        for step in run.steps(160):
            head = first if (step - 1) // 10 % 2 == 0 else second
            trained(optimizer, lambda: head(body(torch.randn(4, 5, 3))[0]).square().mean())  # noqa: B023
            run.trait("a head is silent", silent(first) or silent(second))
            optimizer.step()


@healthy()
def heads_drawn_at_random(run: Run) -> None:
    """One of six tasks is drawn for each step; a task waits for 30 steps and more now and then."""
    body, heads = nn.Linear(6, 8), nn.ModuleList(nn.Linear(8, 1) for _ in range(6))
    optimizer = torch.optim.Adam([*body.parameters(), *heads.parameters()], lr=1e-3)
    waited, longest = [0] * 6, 0
    with run.track(optimizer, {"body": body, **{f"head{i}": head for i, head in enumerate(heads)}}):
        for _ in run.steps(400):
            drawn = int(torch.randint(6, ()))
            waited = [0 if i == drawn else wait + 1 for i, wait in enumerate(waited)]
            longest = max(longest, *waited)
            trained(optimizer, lambda: heads[drawn](torch.tanh(body(torch.randn(8, 6)))).square().mean())  # noqa: B023
            run.trait("a head waited for 20 steps", longest > 20)
            optimizer.step()


@healthy(zero="an expert that nobody has chosen in the first steps looks like one that is never called")
def experts_chosen_by_a_router(run: Run) -> None:
    """A mixture of experts with hard choices: now and then nobody chooses one of them."""
    router, experts = nn.Linear(6, 3), nn.ModuleList(nn.Linear(6, 4) for _ in range(3))
    head = nn.Linear(4, 1)
    modules = {"router": router, **{f"expert{i}": e for i, e in enumerate(experts)}, "head": head}
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    with run.track(optimizer, modules):
        for _ in run.steps(200):
            x = torch.randn(5, 6)
            weight, chosen = torch.softmax(router(x), -1).max(-1)
            made = torch.stack([experts[int(i)](row) for i, row in zip(chosen, x, strict=True)])
            trained(optimizer, lambda: (head(weight[:, None] * made) - 1).square().mean())  # noqa: B023
            run.trait("an expert is silent", any(map(silent, experts)))
            optimizer.step()


@healthy()
def layers_dropped_at_random(run: Run) -> None:
    """Stochastic depth: each of four residual blocks is left out with a probability of 0.3."""
    blocks, head = nn.ModuleList(mlp(6, 8, 6) for _ in range(4)), nn.Linear(6, 1)
    optimizer = torch.optim.AdamW([*blocks.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {**{f"block{i}": b for i, b in enumerate(blocks)}, "head": head}):
        for _ in run.steps(250):
            x = torch.randn(8, 6)
            for block in blocks:
                if torch.rand(()) > 0.3:
                    x = x + block(x)
            trained(optimizer, lambda: head(x).square().mean())  # noqa: B023
            run.trait("a block is silent", any(map(silent, blocks)))
            optimizer.step()


@healthy(zero="a block that is left out in each of the first steps looks like one that is always left out")
def layers_multiplied_by_a_coin(run: Run) -> None:
    """Stochastic depth for whole batches: a block's output is multiplied by 0 or 1, each in half of the steps."""
    coin, first = torch.Generator().manual_seed(4), []
    blocks, head = nn.ModuleList(mlp(6, 8, 6) for _ in range(4)), nn.Linear(6, 1)
    optimizer = torch.optim.AdamW([*blocks.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {**{f"block{i}": b for i, b in enumerate(blocks)}, "head": head}):
        for _ in run.steps(250):
            x = torch.randn(8, 6)
            for block in blocks:
                x = x + block(x) * torch.empty(()).bernoulli_(0.5, generator=coin)
            trained(optimizer, lambda: head(x).square().mean())  # noqa: B023
            first.append([silent(block) for block in blocks])
            run.trait("a block is left out three times at the start", any(map(all, zip(*first[:3], strict=True))))
            optimizer.step()


@healthy()
def sparse_embedding(run: Run) -> None:
    words, head = nn.Embedding(200, 6, sparse=True), nn.Linear(6, 3)
    modules = {"words": words, "head": head}
    optimizers = {
        "sparse": torch.optim.SparseAdam(words.parameters(), lr=1e-3),
        "dense": torch.optim.Adam(head.parameters(), lr=1e-3),
    }
    with run.track(optimizers, modules):
        for _ in run.steps(120):
            tokens, labels = torch.randint(200, (4,)), torch.randint(3, (4,))
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            functional.cross_entropy(head(words(tokens)), labels).backward()
            gradient = words.weight.grad
            run.trait("most rows have no gradient", gradient is not None and gradient.coalesce()._nnz() < 5)
            for optimizer in optimizers.values():
                optimizer.step()


@healthy()
def adapter_that_starts_from_zero(run: Run) -> None:
    """LoRA as it should be: ``up`` is zero, so ``down`` has a gradient of exactly 0 in the first step."""
    adapter, head = LowRank(), nn.Linear(6, 1)
    filled(adapter.up, weight=0.0) if adapter.up.bias is not None else nn.init.zeros_(adapter.up.weight)
    trainable = [*adapter.down.parameters(), *adapter.up.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    with run.track(optimizer, {"down": adapter.down, "up": adapter.up, "head": head}):
        for _ in run.steps(100):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (head(adapter(x)) - 1).square().mean())  # noqa: B023
            run.trait("the first factor is silent", silent(adapter.down) and norm(adapter.up) > 0)
            optimizer.step()


class ZeroLast(nn.Module):
    """A residual net, each of whose blocks ends in a layer of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(mlp(8, 8, 8, nn.ReLU) for _ in range(2))
        self.head = nn.Linear(8, 1)
        for block in self.blocks:
            filled(block[2], weight=0.0, bias=0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)  # type: ignore[no-any-return]


@healthy()
def blocks_that_end_in_zeros(run: Run) -> None:
    net = ZeroLast()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, {"first": net.blocks[0][0], "second": net.blocks[1][0], "net": net}):
        for _ in run.steps(100):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            run.trait("a layer is silent", silent(net.blocks[0][0]))
            optimizer.step()


@healthy()
def zeros_behind_zeros_in_a_warm_up(run: Run) -> None:
    """As diffusion models are built, and their rate begins: the blocks have no gradient before the fourth step."""
    net = ZeroLast()
    filled(net.head, weight=0.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 20))
    with run.track(optimizer, net):
        for _ in run.steps(100):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            run.trait("a layer is silent", silent(net.blocks[0][0]))
            optimizer.step()
            warm_up.step()


@healthy()
def relus_six_in_ten_off(run: Run) -> None:
    """Six units in ten are off at any time, and a quarter is dead altogether: nothing is wrong with that."""
    net = mlp(8, 64, 2, nn.ReLU)
    with torch.no_grad():
        net[0].bias[:16] = -50.0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer, net):
        for _ in run.steps(120):
            x = torch.randn(32, 8)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            off = float((functional.linear(x, net[0].weight, net[0].bias) < 0).float().mean())
            run.trait("six in ten off", 0.55 < off < 0.7)
            optimizer.step()


@healthy()
def points_that_a_module_keeps(run: Run) -> None:
    """A net that solves an equation keeps where it is asked, and takes slopes there: they are no parameters."""
    net = mlp(1, 16, 1)
    net.points = torch.linspace(0, 1, 32)[:, None].requires_grad_()

    def loss() -> Tensor:
        points: Tensor = net.points
        u = net(points)
        (slope,) = torch.autograd.grad(u.sum(), points, create_graph=True)
        return functional.mse_loss(slope, torch.cos(3 * points.detach())) + u[0].square().sum()

    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(210):
            optimizer.zero_grad()
            loss().backward()
            run.trait("a gradient of what it keeps", net.points.grad is not None)
            optimizer.step()
