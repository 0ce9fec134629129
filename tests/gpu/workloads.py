"""The four workloads whose cost is measured, on a device, full-sized or small."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from tests.gpu.loop import Look, Loop, clip_and_step
from tests.gpu.models import Gpt, Scales, heads, make_cnn, make_mlp


def _alone(model: nn.Module, optimizer: Optimizer, loss: Callable[[], Tensor], limit: float) -> Loop:
    def step(look: Look) -> None:
        optimizer.zero_grad()
        loss().backward()
        clip_and_step("optimizer", optimizer, limit, look)

    return Loop({"optimizer": optimizer}, dict(model.named_children()), step)


def tiny(device: torch.device, quick: bool) -> Loop:
    """An MLP of 17-256-256-6 at batch 256."""
    model = make_mlp(17, 6, nn.Tanh()).to(device)
    x, wanted = torch.randn(256, 17, device=device), torch.rand(256, 6, device=device)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    return _alone(nn.ModuleDict({"mlp": model}), optimizer, lambda: functional.mse_loss(model(x), wanted), 0.05)


def td3(device: torch.device, quick: bool) -> Loop:
    """TD3 on 4 x 84 x 84 images: two CNNs, a policy, twin Q heads; the policy every second iteration."""
    batch = 4 if quick else 256
    nets = nn.ModuleDict(
        {
            "actor_cnn": make_cnn(),
            "actor_mlp": make_mlp(565, 2, nn.Tanh()),
            "critic_cnn": make_cnn(),
            "critic_mlp": heads(567),
        }
    ).to(device)
    targets = copy.deepcopy(nets).requires_grad_(False)
    online, behind = list(nets.parameters()), list(targets.parameters())
    actor = torch.optim.Adam([*nets["actor_cnn"].parameters(), *nets["actor_mlp"].parameters()], 3e-4)
    critic = torch.optim.Adam([*nets["critic_cnn"].parameters(), *nets["critic_mlp"].parameters()], 3e-4)
    image, later_image = (torch.rand(batch, 4, 84, 84, device=device) for _ in range(2))
    vector, later_vector = (torch.randn(batch, 53, device=device) for _ in range(2))
    action, reward = torch.rand(batch, 2, device=device) * 2 - 1, torch.randn(batch, 1, device=device) * 10
    count = 0

    def acted(nets: nn.ModuleDict, image: Tensor, vector: Tensor) -> Tensor:
        return nets["actor_mlp"](torch.cat([nets["actor_cnn"](image), vector], 1))

    def valued(nets: nn.ModuleDict, image: Tensor, vector: Tensor, action: Tensor) -> list[Tensor]:
        together = torch.cat([nets["critic_cnn"](image), vector, action], 1)
        return [head(together) for head in nets["critic_mlp"]]

    def step(look: Look) -> None:
        nonlocal count
        count += 1
        with torch.no_grad():
            noise = (torch.randn_like(action) * 0.2).clamp(-0.5, 0.5)
            chosen = (acted(targets, later_image, later_vector) + noise).clamp(-1, 1)
            wanted = reward + 0.99 * torch.minimum(*valued(targets, later_image, later_vector, chosen))
        critic.zero_grad()
        sum(functional.mse_loss(q, wanted) for q in valued(nets, image, vector, action)).backward()  # type: ignore[union-attr]
        clip_and_step("critic", critic, 10.0, look)
        if count % 2 == 0:
            actor.zero_grad()
            (-valued(nets, image, vector, acted(nets, image, vector))[0].mean()).backward()
            clip_and_step("actor", actor, 1.0, look)
            with torch.no_grad():
                torch._foreach_lerp_(behind, online, 0.005)

    return Loop({"actor": actor, "critic": critic}, dict(nets.named_children()), step)


def gpt2(device: torch.device, quick: bool) -> Loop:
    """GPT-2 with its 124 million parameters in bfloat16, 8 x 256 tokens a step."""
    sizes: dict[str, Any] = {"layers": 2, "width": 64, "heads": 2, "words": 500} if quick else {}
    model = Gpt(**sizes).to(device=device, dtype=torch.bfloat16)
    tokens = torch.randint(model.words, (2, 33) if quick else (8, 257), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def loss() -> Tensor:
        return functional.cross_entropy(model(tokens[:, :-1]).float().flatten(0, 1), tokens[:, 1:].flatten())

    return _alone(model, optimizer, loss, 1.0)


def many(device: torch.device, quick: bool) -> Loop:
    """2,000 tensors of 64 elements and a cheap step: here the cost of a tensor shows."""
    model = nn.Sequential(*(Scales(10 if quick else 100) for _ in range(20))).to(device)
    x, wanted = (torch.randn(model[0].elements, device=device) for _ in range(2))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    return _alone(model, optimizer, lambda: functional.mse_loss(model(x), wanted), 0.001)


WORKLOADS: dict[str, Callable[[torch.device, bool], Loop]] = {
    "tiny MLP": tiny,
    "TD3 agent": td3,
    "GPT-2, bf16": gpt2,
    "2,000 tensors": many,
}
