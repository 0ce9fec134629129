"""A small training, in one process and on many ranks: the same model, data and steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch
from gradwatch.records import StepRecord
from tests.reference import exact_norm

STEPS = 20
MAX_NORM = 0.35
BATCH = 4

Norms = dict[str, float]


class Net(nn.Module):
    """Tokens to numbers; sizes that no number of ranks divides but 2 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 8)
        self.norm = nn.LayerNorm(8)
        self.wide = nn.Linear(8, 12)
        self.narrow = nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.norm(self.embedding(tokens))
        return self.head(self.narrow(torch.tanh(self.wide(hidden))))


PARTS = ("embedding", "norm", "wide", "narrow", "head")


def net() -> Net:
    torch.manual_seed(3)
    return Net()


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return torch.randint(0, 8, (BATCH, 4), generator=generator), torch.randn(BATCH, 4, 3, generator=generator)


def whole_batch(step: int, world: int) -> tuple[Tensor, Tensor]:
    tokens, targets = zip(*(batch(step, rank) for rank in range(world)), strict=True)
    return torch.cat(tokens), torch.cat(targets)


def loss_of(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(model(tokens), targets)


def optimizer_of(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.5)


def halve(parameters: Iterable[Tensor]) -> None:
    """Clipping code of one's own."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(0.5)


def clip(parameters: Iterable[Tensor]) -> None:
    nn.utils.clip_grad_norm_(parameters, MAX_NORM)


def truth(
    world: int, *, own: bool = False, passes: int = 1, per_rank: bool = True, steps: int = STEPS
) -> list[tuple[Norms, Norms]]:
    """Both norms of every step of one process that has the batches of all ranks, each module's and the whole.

    Args:
        world: number of ranks.
        own: halve the gradients rather than clip them.
        passes: backward passes that are accumulated for a step.
        per_rank: each rank has a batch of its own; if not, all have that of rank 0.
        steps: number of steps.
    """
    model = net()
    optimizer = optimizer_of(model.parameters())
    norms = []
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(passes):
            loss_of(model, *whole_batch(passes * step + part, world if per_rank else 1)).backward()
        before = norms_of(model)
        coefficient = 0.5 if own else min(1.0, MAX_NORM / (before["all"] + 1e-6))
        for parameter in model.parameters():
            parameter.grad.mul_(coefficient)
        norms.append((before, norms_of(model)))
        optimizer.step()
    return norms


def norms_of(model: Net) -> Norms:
    norms = {part: exact_norm(p.grad for p in getattr(model, part).parameters()) for part in PARTS}
    return {**norms, "all": math.sqrt(math.fsum(norm * norm for norm in norms.values()))}


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    *,
    clipping: Callable[[Sequence[Tensor]], object] = clip,
    passes: int = 1,
    unsynchronized: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    steps: int = STEPS,
    after_step: Callable[[int], object] = lambda step: None,
) -> None:
    """The training loop of one rank."""
    parameters = list(model.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(passes):
            with unsynchronized() if part < passes - 1 else contextlib.nullcontext():
                loss_of(model, *batch(passes * step + part, rank)).backward()
        clipping(parameters)
        optimizer.step()
        after_step(step)


def tracked(
    model: nn.Module, parts: nn.Module, rank: int, optimizer: torch.optim.Optimizer | None = None, **options: Any
) -> list[tuple[Norms, Norms]]:
    """The same norms as gradwatch reports them on this rank."""
    optimizer = optimizer or optimizer_of(model.parameters())
    modules = {part: getattr(parts, part) for part in PARTS}
    with gradwatch.track(optimizer, modules) as watch:
        train(model, optimizer, rank, **options)
    assert watch.health().dropped_records == 0
    assert watch.health().internal_errors == 0
    return [norms_in(record) for record in watch.history]


def norms_in(record: StepRecord) -> tuple[Norms, Norms]:
    before = {part: norms.norm_before for part, norms in record.modules.items()}
    after = {part: norms.norm_after for part, norms in record.modules.items()}
    return {**before, "all": record.norm_before}, {**after, "all": record.norm_after}
