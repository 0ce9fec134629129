"""Sparse gradients, coalesced or not, and what own code makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tests.loops.run import Clip, Run, conformance


class Bag(nn.Module):
    """An embedding with sparse gradients; repeated tokens leave them uncoalesced."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 4, sparse=True)
        self.out = nn.Linear(4, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens).sum(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("passes", [1, 2])
@conformance
def test_sparse_gradients_of_repeated_tokens(run: Run, passes: int) -> None:
    """With two passes torch adds up the sparse gradients by appending one to the other."""
    model = Bag()
    optimizers = {
        "sparse": torch.optim.SparseAdam(model.embed.parameters(), lr=0.01),
        "dense": torch.optim.Adam(model.out.parameters(), lr=0.01),
    }
    with run.track(optimizers, model):
        for _ in range(6):
            model.zero_grad()
            for _ in range(passes):
                tokens = torch.randint(12, (3, 5))
                tokens[:, 1] = tokens[:, 0]
                (model(tokens) - 1).square().mean().mul(10).backward()
            run.before("dense")
            norm = clip_grad_norm_(model.out.parameters(), 0.5)
            run.after("sparse", passes=passes)
            optimizers["sparse"].step()
            run.after("dense", Clip(0.5, norm), passes=passes)
            optimizers["dense"].step()


@pytest.mark.parametrize("change", ["coalesced", "scaled", "values scaled in place", "made dense"])
@conformance
def test_sparse_gradients_changed_by_own_code(run: Run, change: str) -> None:
    model = Bag()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def changed(gradient: Tensor) -> Tensor:
        if change == "coalesced":
            return gradient.coalesce()
        if change == "scaled":
            return gradient * 0.5
        if change == "made dense":
            return gradient.to_dense()
        gradient._values().mul_(0.25)
        return gradient

    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            tokens = torch.randint(12, (3, 5))
            tokens[:, 1] = tokens[:, 0]
            (model(tokens) - 1).square().mean().mul(10).backward()
            run.before()
            model.embed.weight.grad = changed(model.embed.weight.grad)  # type: ignore[arg-type]
            run.after()
            optimizer.step()


@conformance
def test_sparse_and_then_dense_gradients_of_one_parameter(run: Run) -> None:
    """A layer switched from sparse to dense while it is trained."""
    model = Bag()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(6):
            model.embed.sparse = step < 3
            optimizer.zero_grad()
            model(torch.randint(12, (3, 5))).square().mean().backward()
            run.after()
            optimizer.step()
