"""Loops rebuilt from public bug reports: what the loss does not reach, or reaches and nobody steps."""

from __future__ import annotations

import copy
import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.zoo.nets import norm, optimized, silent, trained
from tests.zoo.registry import ANYWHERE, Verdict, fault_and_repair
from tests.zoo.run import Run


@fault_and_repair(Verdict("lost", severity="critical"))
def zero_grad_at_the_head_of_an_accumulation(run: Run, fixed: bool) -> None:
    """Accelerate lets it through at the last micro-batch only, where it erases the passes of the others."""
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    truth = torch.randn(10, 1)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            erased = False
            for number in range(4):
                if number == 3 and not fixed:
                    erased = norm(net) > 0
                    optimizer.zero_grad()
                x = torch.randn(8, 10)
                (functional.mse_loss(net(x), x @ truth) / 4).backward()
            run.fault(erased)
            nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            if fixed:
                optimizer.zero_grad()


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(8, size))
        self.first, self.second = (nn.Conv2d(size, size, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        h = functional.silu(self.first(x))
        if t is not None:
            h = h + self.time_mlp(t)[:, :, None, None]
        return x + self.second(h)  # type: ignore[no-any-return]


class Denoiser(nn.Module):
    """A small U-Net without its U: the last block is not handed the time."""

    def __init__(self, fixed: bool, size: int = 4) -> None:
        super().__init__()
        self.to_time, self.init_conv = nn.Linear(1, 8), nn.Conv2d(1, size, 3, padding=1)
        self.mid_block, self.final_res_block = Block(size), Block(size)
        self.norm_mid_cond = nn.LayerNorm(8)
        self.final_conv, self.fixed = nn.Conv2d(size, 1, 1), fixed

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        condition = self.to_time(t[:, None])
        if self.fixed:
            condition = self.norm_mid_cond(condition)
        x = self.mid_block(self.init_conv(x), condition)
        return self.final_conv(self.final_res_block(x, condition if self.fixed else None))  # type: ignore[no-any-return]


@fault_and_repair(
    Verdict("zero", "unused", module="final_res_block.time_mlp"), Verdict("zero", "unused", module="norm_mid_cond")
)
def layers_unused_inside_of_a_distributed_model(run: Run, fixed: bool) -> None:
    """``find_unused_parameters=True`` was switched on to silence DDP, and hides two layers that are never called."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        net = Denoiser(fixed)
        model = nn.parallel.DistributedDataParallel(net, find_unused_parameters=not fixed)

        def loss() -> Tensor:
            x, t = torch.randn(4, 1, 6, 6), torch.rand(4)
            noise = torch.randn_like(x)
            return functional.mse_loss(model(x + t[:, None, None, None] * noise, t), noise)

        dead = nn.ModuleList([net.final_res_block.time_mlp, net.norm_mid_cond])
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
        optimized(run, model, loss, lambda: silent(dead) and norm(net.mid_block) > 0, optimizer)
    finally:
        dist.destroy_process_group()


class Listed(nn.Module):
    """Its hidden layers are kept in a Python list."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        layers = [nn.Linear(16, 16) for _ in range(2)]
        self.project, self.hidden, self.classifier = nn.Linear(8, 16), layers, nn.Linear(16, 3)
        if fixed:
            self.hidden = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.project(x))
        for layer in self.hidden:
            h = torch.tanh(layer(h))
        return self.classifier(h)  # type: ignore[no-any-return]


@fault_and_repair(
    Verdict("zero", "not-in-optimizer", module=ANYWHERE, severity="warning", remedy=("modulelist|register",))
)
def layers_in_a_list(run: Run, fixed: bool) -> None:
    """In the graph, with gradients, and in no module and no optimizer, since nothing has registered them."""
    net = Listed(fixed)
    held = {id(p) for p in net.parameters()}

    def loss() -> Tensor:
        x = torch.randn(32, 8)
        return functional.cross_entropy(net(x), (x[:, 0] > 0).long() + (x[:, 1] > 0).long())

    optimized(run, net, loss, lambda: norm(net.hidden[0]) > 0 and id(net.hidden[0].weight) not in held)


class LowRank(nn.Module):
    def __init__(self, size: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(size, size)
        self.lora_a = nn.Parameter(torch.randn(rank, size) * 0.02)
        self.lora_b = nn.Parameter(torch.zeros(size, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + functional.linear(functional.linear(x, self.lora_a), self.lora_b)  # type: ignore[no-any-return]


class Adapted(nn.Module):
    """A frozen embedding and frozen layers with adapters, each layer behind a checkpoint."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.embed, self.score, self.reentrant = nn.Embedding(50, 16), nn.Linear(16, 3), reentrant
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), LowRank(16), nn.GELU()) for _ in range(2))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("lora" in name or "score" in name)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = x + checkpoint(layer, x, use_reentrant=self.reentrant)
        return self.score(x.mean(1))  # type: ignore[no-any-return]


@fault_and_repair(Verdict("zero", "no-grad", module="layers", remedy=("use_reentrant",)))
def adapters_behind_reentrant_checkpoints(run: Run, fixed: bool) -> None:
    """No input of a checkpoint asks for a gradient, so that its forward pass is recorded nowhere."""
    net = Adapted(reentrant=not fixed)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 2e-3)

    def loss() -> Tensor:
        ids = torch.randint(50, (16, 10))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says so too, once, among much else
            return functional.cross_entropy(net(ids), (ids[:, 0] + ids[:, 1]) % 3)

    parts: dict[str, nn.Module] = {"layers": net.layers, "score": net.score}
    optimized(run, parts, loss, lambda: silent(net.layers) and norm(net.score) > 0, optimizer)


@fault_and_repair(Verdict("zero", "no-backward|unused|detached", module="net", remedy=("copy|another",)))
def meta_learner_that_is_a_copy(run: Run, fixed: bool) -> None:
    """MAML: the outer loss is that of a deep copy, and never reaches the model that the meta optimizer holds."""
    net = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
    meta = torch.optim.Adam(net.parameters(), 1e-3)

    def outer() -> Tensor:
        x = torch.rand(20, 1) * 10 - 5
        y = (torch.rand(1) * 4 + 0.1) * torch.sin(x + torch.rand(1) * 3.14)
        if fixed:
            fast = dict(net.named_parameters())
            loss = functional.mse_loss(torch.func.functional_call(net, fast, (x[:10],)), y[:10])
            inner_gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = {n: p - 0.01 * g for (n, p), g in zip(fast.items(), inner_gradients, strict=True)}
            return functional.mse_loss(torch.func.functional_call(net, fast, (x[10:],)), y[10:])
        learner = copy.deepcopy(net)
        inner = torch.optim.SGD(learner.parameters(), 0.01)
        trained(inner, lambda: functional.mse_loss(learner(x[:10]), y[:10]))
        inner.step()
        return functional.mse_loss(learner(x[10:]), y[10:])

    optimized(run, {"net": net}, outer, lambda: all(p.grad is None for p in net.parameters()), meta)
