"""Backward passes that are meant to be accumulated, and are erased before the step."""

from __future__ import annotations

import torch

from tests.zoo.nets import mlp
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run

LOST = Verdict("lost", "zeroed", where=("optimizer",), evidence=("lost_passes",))


@fault(LOST)
def zeroed_at_the_head_of_each_micro_batch(run: Run) -> None:
    """Gradients of four micro-batches, of which the last one alone is left."""
    net = mlp()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(20):
            alone = []
            for _ in range(4):
                optimizer.zero_grad()
                (net(torch.randn(8, 6)).pow(2).mean() / 4).backward()
                alone.append(net[0].weight.grad.clone())
            run.fault(torch.equal(net[0].weight.grad, alone[-1]), lost_passes=3)
            optimizer.step()


@fault(LOST)
def zeroed_where_the_last_micro_batch_begins(run: Run) -> None:
    """As under Accelerate, whose zero_grad() takes effect on the last micro-batch alone."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with run.track(optimizer, net):
        for _ in run.steps(20):
            whole = torch.zeros_like(net[0].weight)
            for batch in range(3):
                if batch == 2:
                    whole += net[0].weight.grad
                    optimizer.zero_grad(set_to_none=False)
                (net(torch.randn(8, 6)) - 1.0).pow(2).mean().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            run.fault(bool(whole.any()), lost_passes=2)
            optimizer.step()
