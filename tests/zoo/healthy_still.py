"""Healthy iterations, some of them hard to tell from ill ones: a look at one must find no cause of anything."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.zoo.still import Loop, still_healthy


@still_healthy
def mlp() -> Loop:
    net, x = (
        nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)),
        torch.randn(16, 8),
    )
    return Loop({"net": net}, lambda: net(x).square().mean().backward())


@still_healthy
def sparse_relus() -> Loop:
    """Six units in ten are off at any time, and some are dead altogether: nothing is wrong with that."""
    net, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)), torch.randn(32, 8)
    with torch.no_grad():
        net[0].bias[:16] = -50.0
    assert 0.5 < float((net[:2](x) == 0).float().mean()) < 0.75
    return Loop({"net": net}, lambda: net(x).square().mean().backward())


@still_healthy
def partly_saturated_tanh() -> Loop:
    net, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)), torch.randn(32, 8)
    with torch.no_grad():
        net[0].bias[:12] = 40.0
    assert float((net[:2](x) == 1).float().mean()) >= 0.75
    return Loop({"net": net}, lambda: net(x).square().mean().backward())


@still_healthy
def cnn_with_dropout() -> Loop:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(72, 4),
    )
    x, labels = torch.randn(8, 3, 8, 8), torch.randint(4, (8,))
    return Loop({"net": net}, lambda: functional.cross_entropy(net(x), labels).backward())


@still_healthy
def lstm() -> Loop:
    net, head, x = nn.LSTM(4, 8, 2, batch_first=True, dropout=0.1), nn.Linear(8, 1), torch.randn(4, 6, 4)
    return Loop({"lstm": net, "head": head}, lambda: head(net(x)[0]).square().mean().backward())


@still_healthy
def gru() -> Loop:
    net, head, x = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 1), torch.randn(4, 6, 4)
    return Loop({"gru": net, "head": head}, lambda: head(net(x)[0][:, -1]).square().mean().backward())


@still_healthy
def transformer() -> Loop:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    words, net, head = nn.Embedding(20, 8, padding_idx=0), nn.TransformerEncoder(layer, 2), nn.Linear(8, 20)
    tokens = torch.randint(1, 20, (4, 5))
    tokens[:, -1] = 0
    causal = nn.Transformer.generate_square_subsequent_mask(5)

    def backward() -> None:
        out = head(net(words(tokens), mask=causal, is_causal=True))
        functional.cross_entropy(out.flatten(0, 1), tokens.flatten(), ignore_index=0).backward()

    return Loop({"words": words, "net": net, "head": head}, backward)


@still_healthy
def actor_critic() -> Loop:
    """The policy's loss runs through the critic; the target of the critic runs under no_grad; tanh is alive."""
    actor, critic = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2), nn.Tanh()), nn.Linear(6, 1)
    x, reward = torch.randn(8, 4), torch.randn(8, 1)

    def backward() -> None:
        with torch.no_grad():
            target = reward + 0.9 * critic(torch.cat([x, actor(x)], dim=1))
        functional.mse_loss(critic(torch.cat([x, torch.rand(8, 2)], dim=1)), target).backward()
        (-critic(torch.cat([x, actor(x)], dim=1)).mean()).backward()

    return Loop({"actor": actor, "critic": critic}, backward)


@still_healthy
def minimum_of_two_critics() -> Loop:
    first, second, x = nn.Linear(4, 1), nn.Linear(4, 1), torch.randn(64, 4)
    return Loop({"first": first, "second": second}, lambda: torch.minimum(first(x), second(x)).mean().backward())


@still_healthy
def accumulation_under_autocast() -> Loop:
    net, parts = (
        nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 2)),
        torch.randn(3, 8, 8),
    )

    def backward() -> None:
        for part in parts:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = net(part).float().square().mean() / len(parts)
            loss.backward()

    return Loop({"net": net}, backward)


@still_healthy
def checkpointed() -> Loop:
    first, second, x = (
        nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Tanh()),
        nn.Linear(8, 1),
        torch.randn(8, 8),
    )
    return Loop(
        {"first": first, "second": second},
        lambda: second(checkpoint(first, x, use_reentrant=False)).square().mean().backward(),
    )


@still_healthy
def reentrant_checkpointed() -> Loop:
    first, second = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Tanh()), nn.Linear(8, 1)
    x = torch.randn(8, 8, requires_grad=True)
    return Loop(
        {"first": first, "second": second},
        lambda: second(checkpoint(first, x, use_reentrant=True)).square().mean().backward(),
    )


class Rounded(torch.autograd.Function):
    """Rounding with a straight-through gradient."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


@still_healthy
def straight_through() -> Loop:
    first, second, x = nn.Linear(8, 8), nn.Linear(8, 1), torch.randn(8, 8) * 3
    return Loop(
        {"first": first, "second": second}, lambda: second(Rounded.apply(first(x))).square().mean().backward()
    )


@still_healthy
def gradient_penalty() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 16), nn.Softplus(), nn.Linear(16, 1)), torch.randn(8, 4)

    def backward() -> None:
        points = x.clone().requires_grad_()
        out = net(points)
        (slope,) = torch.autograd.grad(out.sum(), points, create_graph=True)
        (out.square().mean() + (slope.norm(dim=1) - 1).square().mean()).backward()

    return Loop({"net": net}, backward)


@still_healthy
def sparse_embedding() -> Loop:
    words, head, tokens = nn.Embedding(30, 4, sparse=True), nn.Linear(4, 1), torch.randint(30, (5,))
    return Loop({"words": words, "head": head}, lambda: head(words(tokens)).square().mean().backward())


@still_healthy
def complex_numbers() -> Loop:
    net, x = nn.Linear(4, 4, dtype=torch.complex64), torch.randn(3, 4, dtype=torch.complex64)
    return Loop({"net": net}, lambda: net(x).abs().square().mean().backward())


@still_healthy
def multi_task_with_a_dead_zone() -> Loop:
    """One sample's hinge is satisfied, another's not; one token is masked, others are not."""
    body, first, second, x = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 3), torch.randn(12, 6)
    labels = torch.randint(3, (12,))
    labels[::2] = -100

    def backward() -> None:
        features = torch.tanh(body(x))
        hinge = torch.relu(0.1 - first(features)).mean()
        (hinge + 0.3 * functional.cross_entropy(second(features), labels)).backward()

    return Loop({"body": body, "first": first, "second": second}, backward)
