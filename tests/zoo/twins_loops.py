"""Wrong turns of the loop itself, each with its repaired twin: erased passes, norms that are none, lost layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import mlp, norm, optimized, silent
from tests.zoo.registry import ANYWHERE, Verdict, fault_and_repair
from tests.zoo.run import Run


@fault_and_repair(Verdict("lost", severity="critical"))
def zeroed_before_each_micro_batch(run: Run, fixed: bool) -> None:
    """Accumulation over four micro-batches, each of which begins with ``zero_grad``."""
    net = mlp(6, 16, 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            erased = False
            for number in range(4):
                erased = erased or (not fixed and norm(net) > 0 and number > 0)
                if not fixed or number == 0:
                    optimizer.zero_grad()
                x = torch.randn(8, 6)
                (functional.mse_loss(net(x), x[:, :2]) / 4).backward()
            run.fault(erased)
            optimizer.step()


@fault_and_repair(Verdict("lost", severity="critical"), also=("zero",))
def zeroed_before_each_of_the_losses(run: Run, fixed: bool) -> None:
    """A helper computes, zeroes and goes back for each loss; of three tasks only the last one counts."""
    body, heads = nn.Linear(6, 8), nn.ModuleList(nn.Linear(8, 1) for _ in range(3))
    optimizer = torch.optim.Adam([*body.parameters(), *heads.parameters()], lr=1e-3)
    with run.track(optimizer, {"body": body, "heads": heads}):
        for _ in run.steps(30):
            erased, x = False, torch.randn(16, 6)
            for number, head in enumerate(heads):
                erased = erased or (not fixed and number > 0 and norm(body) > 0)
                if not fixed or number == 0:
                    optimizer.zero_grad()
                functional.mse_loss(head(torch.tanh(body(x))), x[:, number : number + 1]).backward()
            run.fault(erased)
            optimizer.step()


def clipped_by(run: Run, fixed: bool, wrong: object) -> None:
    """``clip_grads_with_norm_`` with a total that is made by hand of the norms of the gradients."""
    net = mlp(6, 16, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            x = torch.randn(16, 6)
            optimizer.zero_grad()
            (100 * functional.mse_loss(net(x), x[:, :2])).backward()
            norms = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None])
            total = norms.square().sum().sqrt() if fixed else wrong(norms)  # type: ignore[operator]
            run.fault(not math.isclose(float(total), norm(net), rel_tol=1e-3))
            nn.utils.clip_grads_with_norm_(net.parameters(), 1.0, total)
            optimizer.step()


@fault_and_repair(Verdict("clip-broken"))
def clipped_by_the_mean_of_the_norms(run: Run, fixed: bool) -> None:
    clipped_by(run, fixed, lambda norms: norms.mean())


@fault_and_repair(Verdict("clip-broken"))
def clipped_by_the_largest_of_the_norms(run: Run, fixed: bool) -> None:
    clipped_by(run, fixed, lambda norms: norms.amax())


@fault_and_repair(Verdict("clip-broken"), also=("clip-saturated",))
def clipped_by_a_sum_of_squares(run: Run, fixed: bool) -> None:
    """The root was left out: far more is clipped than should be."""
    clipped_by(run, fixed, lambda norms: norms.square().sum())


@fault_and_repair(
    Verdict("zero", "not-in-optimizer", module=ANYWHERE, severity="warning", remedy=("parameter|register",))
)
def scale_that_is_a_plain_tensor(run: Run, fixed: bool) -> None:
    """``torch.ones(..., requires_grad=True)`` kept by a module is no parameter of it."""
    net = mlp(6, 16, 2)
    net.scale = nn.Parameter(torch.ones(2)) if fixed else torch.ones(2, requires_grad=True)
    scale, held = net.scale, {id(p) for p in net.parameters()}

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        return functional.mse_loss(scale * net(x), x[:, :2])

    optimized(run, net, loss, lambda: scale.grad is not None and id(scale) not in held)


@fault_and_repair(
    Verdict("zero", "not-in-optimizer", module=ANYWHERE, severity="warning", remedy=("__init__|register",))
)
def layer_made_anew_in_each_forward(run: Run, fixed: bool) -> None:
    """The projection is built where its width is known first: in ``forward``, each time another one."""
    body, head = nn.Linear(6, 8), nn.Linear(4, 2)
    kept = nn.Linear(8, 4)
    parts: dict[str, nn.Module] = {"body": body, "head": head} | ({"kept": kept} if fixed else {})
    made: list[nn.Module] = []

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        made[:] = [kept if fixed else nn.Linear(8, 4)]
        return functional.mse_loss(head(made[0](torch.tanh(body(x)))), x[:, :2])

    optimized(run, parts, loss, lambda: not fixed and norm(made[0]) > 0)


@fault_and_repair(Verdict("zero", "masked", module="last", where=("drop", "last", "MulBackward0")))
def depth_that_drops_its_last_block(run: Run, fixed: bool) -> None:
    """The rate of dropping rises to 1 with the depth, where it should end below: the last block is always left out."""
    first, last, head = mlp(6, 16, 6), mlp(6, 16, 6), nn.Linear(6, 2)
    rates = (0.0, 0.5) if fixed else (0.5, 1.0)

    def kept(x: Tensor, rate: float) -> Tensor:
        return x * (torch.rand(len(x), 1) >= rate)

    def loss() -> Tensor:
        x = torch.randn(32, 6)
        h = x + kept(first(x), rates[0])
        h = h + kept(last(h), rates[1])
        return functional.mse_loss(head(h), x[:, :2])

    parts: dict[str, nn.Module] = {"first": first, "last": last, "head": head}
    optimized(run, parts, loss, lambda: silent(last) and norm(first) > 0)


@fault_and_repair(Verdict("vanishing", "saturated-tanh", module="policy"))
def nearly_every_unit_at_its_end(run: Run, fixed: bool) -> None:
    """Of each hundred outputs of a tanh ninety-seven are where it is flat: no zero, and hardly a gradient."""
    policy, head = nn.Linear(6, 100), nn.Linear(100, 2)
    act = nn.Tanh()
    if not fixed:
        with torch.no_grad():
            policy.bias.fill_(30.0)
            policy.bias[:3] = 8.5
            policy.weight.mul_(0.01)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        return functional.mse_loss(head(act(policy(x))), x[:, :2])

    parts: dict[str, nn.Module] = {"policy": policy, "head": head}
    optimized(run, parts, loss, lambda: 0 < norm(policy) < 1e-7 < norm(head), steps=60)
