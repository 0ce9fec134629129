"""Backward passes that are meant to be accumulated, and are erased before the step, as a whole or in part."""

from __future__ import annotations

import torch
from torch import nn

from tests.zoo.nets import mlp, norm
from tests.zoo.registry import Verdict, fault, fault_and_repair, healthy
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


def shared(heads: int) -> tuple[nn.Module, nn.ModuleList, torch.optim.Optimizer]:
    body, each = mlp(6, 8, 8), nn.ModuleList(nn.Linear(8, 1) for _ in range(heads))
    return body, each, torch.optim.Adam([*body.parameters(), *each.parameters()], lr=1e-3)


@fault_and_repair(
    Verdict("lost", "zeroed", where=("body",), evidence=("lost_passes",), remedy=("whole optimizer",))
)
def shared_body_zeroed_before_each_task(run: Run, fixed: bool) -> None:
    """Each head keeps what its own task says; of the body the last task alone is left."""
    body, heads, optimizer = shared(3)
    with run.track(optimizer, {"body": body, "heads": heads}):
        for _ in run.steps(20):
            erased, x = 0, torch.randn(16, 6)
            optimizer.zero_grad()
            for number, head in enumerate(heads):
                if not fixed:
                    erased += norm(body) > 0
                    body.zero_grad()
                nn.functional.mse_loss(head(torch.tanh(body(x))), x[:, number : number + 1]).backward()
            run.fault(erased == 2, lost_passes=2)
            optimizer.step()


@fault_and_repair(Verdict("lost", "zeroed", where=("body",), evidence=("lost_passes",)))
def gradients_of_one_branch_taken_away_in_each_micro_batch(run: Run, fixed: bool) -> None:
    """A line that was to save memory: ``p.grad = None`` behind all but the last of four micro-batches."""
    body, heads, optimizer = shared(1)
    with run.track(optimizer, {"body": body, "heads": heads}):
        for _ in run.steps(20):
            optimizer.zero_grad()
            erased = 0
            for number in range(4):
                x = torch.randn(8, 6)
                nn.functional.mse_loss(heads[0](torch.tanh(body(x))), x[:, :1]).backward()
                if not fixed and number < 3:
                    erased += norm(body) > 0
                    for parameter in body.parameters():
                        parameter.grad = None
            run.fault(erased == 3, lost_passes=3)
            optimizer.step()


@healthy()
def players_that_are_zeroed_before_their_own_pass(run: Run) -> None:
    """Both step at the end, and one line goes back: the generator's pass runs through the discriminator first."""
    players = {"generator": mlp(4, 16, 2), "discriminator": mlp(2, 16, 1)}
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=1e-3) for name, net in players.items()}
    with run.track(optimizers, players):
        for _ in run.steps(60):
            made, real = players["generator"](torch.randn(16, 4)), torch.randn(16, 2) + 1.0
            for name, net in players.items():
                run.trait("what no step has used is erased", name == "discriminator" and norm(net) > 0)
                net.zero_grad()
                given = [(made, -1.0)] if name == "generator" else [(made.detach(), 1.0), (real, -1.0)]
                scores = [sign * players["discriminator"](points) for points, sign in given]
                nn.functional.softplus(torch.cat(scores)).mean().backward()
            for optimizer in optimizers.values():
                optimizer.step()
