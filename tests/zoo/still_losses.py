"""Losses that teach nothing: weighed by zero, satisfied already, or with nothing left in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import batch, filled
from tests.zoo.still import Loop, still


@still("zero-loss", at="0")
def weight_of_zero() -> Loop:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    x, weight = batch(3, 4), 0.0
    return Loop(net, lambda: (net(x).square().mean() * weight).backward(), lambda: weight == 0.0)


@still("zero-loss", at="second_head")
def multi_task_weight() -> Loop:
    body, first, second = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    x, weights = batch(3, 4), torch.tensor([1.0, 0.0])

    def step() -> None:
        features = torch.tanh(body(x))
        losses = torch.stack([first(features).square().mean(), second(features).square().mean()])
        (losses * weights).sum().backward()

    return Loop({"body": body, "first_head": first, "second_head": second}, step, lambda: weights[1] == 0)


@still("zero-loss", at="head", where="MseLossBackward0", largest_difference=0.0)
def satisfied_exactly() -> Loop:
    head, x = nn.Linear(4, 2), batch(3, 4)
    wanted = head(x).detach()
    return Loop(
        {"head": head},
        lambda: functional.mse_loss(head(x), wanted).backward(),
        lambda: torch.equal(head(x), wanted),
    )


@still("zero-loss", at="head")
def l1_satisfied_exactly() -> Loop:
    head, x = nn.Linear(4, 2), batch(3, 4)
    wanted, loss = head(x).detach(), nn.L1Loss()
    return Loop({"head": head}, lambda: loss(head(x), wanted).backward(), lambda: torch.equal(head(x), wanted))


@still("zero-loss", at="head")
def squares_by_hand() -> Loop:
    head, x = nn.Linear(4, 2), batch(3, 4)
    wanted = head(x).detach()
    return Loop(
        {"head": head}, lambda: ((head(x) - wanted) ** 2).mean().backward(), lambda: torch.equal(head(x), wanted)
    )


@still("zero-loss", at="net")
def hinge_kept() -> Loop:
    net, x = filled(nn.Linear(4, 1), bias=50.0), batch(3, 4)
    return Loop({"net": net}, lambda: torch.relu(1 - net(x)).mean().backward(), lambda: bool((net(x) > 1).all()))


@still("zero-loss", at="net")
def hinge_kept_by_a_clamp() -> Loop:
    """``clamp`` without a maximum is another operation of torch's than ``clamp_min``."""
    net, x = filled(nn.Linear(4, 1), bias=50.0), batch(3, 4)
    step = lambda: (1 - net(x)).clamp(min=0).mean().backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool((net(x) > 1).all()))


@still("zero-loss", at="net")
def logistic_loss_kept() -> Loop:
    """A GAN's loss that is beyond what float32 tells from 0: a softplus of what the network gave, negated."""
    net, x = filled(nn.Linear(4, 1), bias=300.0), batch(3, 4)
    loss = lambda: functional.softplus(-net(x)).mean()  # noqa: E731
    return Loop({"net": net}, lambda: loss().backward(), lambda: loss().item() == 0.0)


@still("zero-loss", at="net")
def margin_kept() -> Loop:
    net, x = filled(nn.Linear(4, 1), bias=50.0), batch(3, 4)
    loss = nn.MarginRankingLoss(margin=1.0)
    step = lambda: loss(net(x), torch.zeros(3, 1), torch.ones(3, 1)).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool((net(x) > 1).all()))


@still("zero-loss", at="net")
def triplet_kept() -> Loop:
    net, x = nn.Linear(4, 4), batch(3, 4)
    far = batch(3, 4) * 100
    step = lambda: functional.triplet_margin_loss(net(x), net(x + 1e-3), far).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: functional.triplet_margin_loss(net(x), net(x + 1e-3), far).item() == 0)


@still("zero-loss", at="net")
def empty_mask() -> Loop:
    net, x, wanted, mask = nn.Linear(4, 2), batch(3, 4), batch(3, 2), torch.zeros(3, 2)

    def step() -> None:
        each = functional.mse_loss(net(x), wanted, reduction="none")
        ((each * mask).sum() / mask.sum().clamp(min=1)).backward()

    return Loop({"net": net}, step, lambda: not mask.any())


@still("zero-loss", at="net")
def advantages_of_zero() -> Loop:
    net, x, action, advantage = nn.Linear(4, 3), batch(6, 4), torch.randint(3, (6,)), torch.zeros(6)

    def step() -> None:
        chosen = net(x).log_softmax(-1).gather(1, action[:, None]).squeeze(1)
        (-(chosen * advantage).mean()).backward()

    return Loop({"net": net}, step, lambda: not advantage.any())


@still("zero-loss", at="net", share_ignored=1.0)
def every_label_ignored() -> Loop:
    net, x, labels = nn.Linear(4, 3), batch(6, 4), torch.full((6,), -100)
    step = lambda: functional.cross_entropy(net(x), labels, reduction="sum").backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool((labels == -100).all()))


@still("zero-loss", at="net")
def sure_of_every_label() -> Loop:
    net, x, labels = nn.Linear(4, 3), batch(6, 4), torch.ones(6, dtype=torch.long)
    with torch.no_grad():
        net.bias[1] = 900.0
    return Loop(
        {"net": net},
        lambda: functional.cross_entropy(net(x), labels).backward(),
        lambda: functional.cross_entropy(net(x), labels) == 0,
    )


@still("zero-loss", at="net")
def initial_gradient_of_zero() -> Loop:
    net, x, initial = nn.Linear(4, 3), batch(6, 4), torch.zeros(6, 3)
    return Loop({"net": net}, lambda: net(x).backward(initial), lambda: not initial.any())


class WithLoss(nn.Module):
    """A network whose forward pass computes the loss as well."""

    def __init__(self, weigh: object) -> None:
        super().__init__()
        self.layer, self.weigh = nn.Linear(4, 3), weigh

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.weigh(functional.cross_entropy(self.layer(x), labels, reduction="none"))


@still("zero-loss", at="layer", where="(root)")
def masked_loss_inside_forward() -> Loop:
    net, x, labels, mask = (
        WithLoss(lambda each: (each * torch.zeros(6)).mean()),
        batch(6, 4),
        torch.arange(6) % 3,
        torch.zeros(6),
    )
    return Loop(net, lambda: net(x, labels).backward(), lambda: not mask.any() and net(x, labels) == 0)


@still("zero-loss", at="layer", where="(root)")
def loss_weight_inside_forward() -> Loop:
    net, x, labels = WithLoss(lambda each: each.mean() * 0.0), batch(6, 4), torch.arange(6) % 3
    return Loop(net, lambda: net(x, labels).backward(), lambda: net(x, labels) == 0)
