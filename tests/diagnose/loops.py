"""Healthy training loops, some of them hard to tell from ill ones, each a class with one ``step``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LOOPS: dict[str, Callable[[], Healthy]] = {}


class Healthy:
    """A loop whose gradients are all there, nonzero and finite.

    Args:
        modules: what is trained.
        backward: one iteration's forward and backward pass.
        optimizer: class of the optimizer.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        backward: Callable[[], object],
        optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    ) -> None:
        self.modules = modules
        self.backward = backward
        self.parameters = list({id(p): p for m in modules.values() for p in m.parameters()}.values())
        self.optimizer = optimizer(self.parameters, lr=1e-3)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()

    def state(self) -> list[object]:
        """Everything that training depends on, as bytes."""
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        buffers = [b for m in self.modules.values() for b in m.buffers()]
        tensors = [
            *self.parameters,
            *gradients,
            *buffers,
            *(v for v in kept if isinstance(v, Tensor)),
            torch.get_rng_state(),
        ]
        return [
            (t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), t.stride()) for t in tensors
        ]


def loop(build: Callable[[], Healthy]) -> Callable[[], Healthy]:
    LOOPS[build.__name__] = build
    return build


@loop
def mlp() -> Healthy:
    net, x = (
        nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)),
        torch.randn(16, 8),
    )
    return Healthy({"net": net}, lambda: net(x).square().mean().backward())


@loop
def sparse_relus() -> Healthy:
    """Six units in ten are off at any time, and some are dead altogether: nothing is wrong with that."""
    net, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)), torch.randn(32, 8)
    with torch.no_grad():
        net[0].bias[:16] = -50.0
    assert 0.5 < float((net[:2](x) == 0).float().mean()) < 0.75
    return Healthy({"net": net}, lambda: net(x).square().mean().backward())


@loop
def partly_saturated_tanh() -> Healthy:
    net, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)), torch.randn(32, 8)
    with torch.no_grad():
        net[0].bias[:12] = 40.0
    assert float((net[:2](x) == 1).float().mean()) >= 0.75
    return Healthy({"net": net}, lambda: net(x).square().mean().backward())


@loop
def cnn_with_dropout() -> Healthy:
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
    return Healthy({"net": net}, lambda: functional.cross_entropy(net(x), labels).backward(), torch.optim.SGD)


@loop
def lstm() -> Healthy:
    net, head, x = nn.LSTM(4, 8, 2, batch_first=True, dropout=0.1), nn.Linear(8, 1), torch.randn(4, 6, 4)
    return Healthy({"lstm": net, "head": head}, lambda: head(net(x)[0]).square().mean().backward())


@loop
def gru() -> Healthy:
    net, head, x = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 1), torch.randn(4, 6, 4)
    return Healthy({"gru": net, "head": head}, lambda: head(net(x)[0][:, -1]).square().mean().backward())


@loop
def transformer() -> Healthy:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    words, net, head = nn.Embedding(20, 8, padding_idx=0), nn.TransformerEncoder(layer, 2), nn.Linear(8, 20)
    tokens = torch.randint(1, 20, (4, 5))
    tokens[:, -1] = 0
    causal = nn.Transformer.generate_square_subsequent_mask(5)

    def backward() -> None:
        out = head(net(words(tokens), mask=causal, is_causal=True))
        functional.cross_entropy(out.flatten(0, 1), tokens.flatten(), ignore_index=0).backward()

    return Healthy({"words": words, "net": net, "head": head}, backward)


@loop
def actor_critic() -> Healthy:
    """The policy's loss runs through the critic; the target of the critic runs under no_grad; tanh is alive."""
    actor, critic = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2), nn.Tanh()), nn.Linear(6, 1)
    x, reward = torch.randn(8, 4), torch.randn(8, 1)

    def backward() -> None:
        with torch.no_grad():
            target = reward + 0.9 * critic(torch.cat([x, actor(x)], dim=1))
        functional.mse_loss(critic(torch.cat([x, torch.rand(8, 2)], dim=1)), target).backward()
        (-critic(torch.cat([x, actor(x)], dim=1)).mean()).backward()

    return Healthy({"actor": actor, "critic": critic}, backward)


@loop
def minimum_of_two_critics() -> Healthy:
    first, second, x = nn.Linear(4, 1), nn.Linear(4, 1), torch.randn(64, 4)
    return Healthy(
        {"first": first, "second": second}, lambda: torch.minimum(first(x), second(x)).mean().backward()
    )


@loop
def accumulation_under_autocast() -> Healthy:
    net, parts = (
        nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 2)),
        torch.randn(3, 8, 8),
    )

    def backward() -> None:
        for part in parts:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = net(part).float().square().mean() / len(parts)
            loss.backward()

    return Healthy({"net": net}, backward)


@loop
def checkpointed() -> Healthy:
    first, second, x = (
        nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Tanh()),
        nn.Linear(8, 1),
        torch.randn(8, 8),
    )
    return Healthy(
        {"first": first, "second": second},
        lambda: second(checkpoint(first, x, use_reentrant=False)).square().mean().backward(),
    )


@loop
def reentrant_checkpointed() -> Healthy:
    first, second = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Tanh()), nn.Linear(8, 1)
    x = torch.randn(8, 8, requires_grad=True)
    return Healthy(
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


@loop
def straight_through() -> Healthy:
    first, second, x = nn.Linear(8, 8), nn.Linear(8, 1), torch.randn(8, 8) * 3
    return Healthy(
        {"first": first, "second": second}, lambda: second(Rounded.apply(first(x))).square().mean().backward()
    )


@loop
def gradient_penalty() -> Healthy:
    net, x = nn.Sequential(nn.Linear(4, 16), nn.Softplus(), nn.Linear(16, 1)), torch.randn(8, 4)

    def backward() -> None:
        points = x.clone().requires_grad_()
        out = net(points)
        (slope,) = torch.autograd.grad(out.sum(), points, create_graph=True)
        (out.square().mean() + (slope.norm(dim=1) - 1).square().mean()).backward()

    return Healthy({"net": net}, backward)


@loop
def sparse_embedding() -> Healthy:
    words, head, tokens = nn.Embedding(30, 4, sparse=True), nn.Linear(4, 1), torch.randint(30, (5,))
    healthy = Healthy({"head": head}, lambda: head(words(tokens)).square().mean().backward())
    healthy.modules["words"] = words
    return healthy


@loop
def complex_numbers() -> Healthy:
    net, x = nn.Linear(4, 4, dtype=torch.complex64), torch.randn(3, 4, dtype=torch.complex64)
    return Healthy({"net": net}, lambda: net(x).abs().square().mean().backward())


@loop
def multi_task_with_a_dead_zone() -> Healthy:
    """One sample's hinge is satisfied, another's not; one token is masked, others are not."""
    body, first, second, x = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 3), torch.randn(12, 6)
    labels = torch.randint(3, (12,))
    labels[::2] = -100

    def backward() -> None:
        features = torch.tanh(body(x))
        hinge = torch.relu(0.1 - first(features)).mean()
        (hinge + 0.3 * functional.cross_entropy(second(features), labels)).backward()

    return Healthy({"body": body, "first": first, "second": second}, backward)
