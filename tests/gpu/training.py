"""Small training loops in the styles that people write, each on a device of choice, each the same when made anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from tests.gpu.loop import Look, Loop, clip_and_step, held

LIMIT = 0.05


def _net(device: str) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 2)
    ).to(device)


def _data(device: str) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(5)
    return torch.randn(64, 8, generator=made).to(device), torch.randn(64, 2, generator=made).to(device)


def simple(
    optimizer_of: Callable[[list[nn.Parameter]], Optimizer], set_to_none: bool = True
) -> Callable[[str], Loop]:
    """zero_grad, backward, clip, step."""

    def made(device: str) -> Loop:
        net, (x, y) = _net(device), _data(device)
        optimizer = optimizer_of(list(net.parameters()))

        def step(look: Look) -> None:
            optimizer.zero_grad(set_to_none=set_to_none)
            functional.mse_loss(net(x), y).backward()
            clip_and_step("optimizer", optimizer, LIMIT, look)

        return Loop({"optimizer": optimizer}, {"net": net}, step)

    return made


def accumulating(device: str) -> Loop:
    """Four backward passes for each step."""
    net, (x, y) = _net(device), _data(device)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)

    def step(look: Look) -> None:
        optimizer.zero_grad()
        for part, wanted in zip(x.chunk(4), y.chunk(4), strict=True):
            (functional.mse_loss(net(part), wanted) / 4).backward()
        clip_and_step("optimizer", optimizer, LIMIT, look)

    return Loop({"optimizer": optimizer}, {"net": net}, step)


def scaled(device: str) -> Loop:
    """Mixed precision: the scaler of torch, unscaled before clipping, with an optimizer that asks no host."""
    net, (x, y) = _net(device), _data(device)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)

    def step(look: Look) -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.float16 if device == "cuda" else torch.bfloat16):
            loss = functional.mse_loss(net(x).float(), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        look("optimizer", optimizer)
        torch.nn.utils.clip_grad_norm_(held(optimizer), LIMIT)
        look("optimizer", optimizer)
        scaler.step(optimizer)
        scaler.update()

    return Loop({"optimizer": optimizer}, {"net": net}, step)


def bfloat16(device: str) -> Loop:
    """Weights and gradients in bfloat16."""
    net, (x, y) = _net(device).bfloat16(), _data(device)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)

    def step(look: Look) -> None:
        optimizer.zero_grad()
        functional.mse_loss(net(x.bfloat16()), y.bfloat16()).backward()
        clip_and_step("optimizer", optimizer, LIMIT, look)

    return Loop({"optimizer": optimizer}, {"net": net}, step)


def actor_critic(device: str) -> Loop:
    """Two optimizers; the loss of the policy writes into the critic, too."""
    torch.manual_seed(7)
    actor = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2), nn.Tanh()).to(device)
    critic = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1)).to(device)
    (x, action), reward = _data(device), torch.ones(64, 1, device=device)
    optimizers = {
        "actor": torch.optim.Adam(actor.parameters(), 1e-3),
        "critic": torch.optim.Adam(critic.parameters(), 1e-3),
    }

    def step(look: Look) -> None:
        optimizers["critic"].zero_grad()
        functional.mse_loss(critic(torch.cat([x, action.tanh()], dim=1)), reward).backward()
        clip_and_step("critic", optimizers["critic"], LIMIT, look)
        optimizers["actor"].zero_grad()
        (-critic(torch.cat([x, actor(x)], dim=1)).mean()).backward()
        clip_and_step("actor", optimizers["actor"], LIMIT, look)

    return Loop(optimizers, {"actor_net": actor, "critic_net": critic}, step)


LOOPS: dict[str, Callable[[str], Loop]] = {
    "sgd": simple(lambda held: torch.optim.SGD(held, 1e-2)),
    "sgd, gradients kept as zeros": simple(lambda held: torch.optim.SGD(held, 1e-2), set_to_none=False),
    "adam, foreach": simple(lambda held: torch.optim.Adam(held, 1e-3, foreach=True)),
    "adam, one by one": simple(lambda held: torch.optim.Adam(held, 1e-3, foreach=False)),
    "adam, fused": simple(lambda held: torch.optim.Adam(held, 1e-3, fused=True)),
    "adamw, fused": simple(lambda held: torch.optim.AdamW(held, 1e-3, fused=True)),
    "rmsprop": simple(lambda held: torch.optim.RMSprop(held, 1e-3)),
    "accumulation": accumulating,
    "gradient scaler": scaled,
    "bfloat16": bfloat16,
    "actor and critic": actor_critic,
}
