"""The networks of the workloads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def make_mlp(inside: int, outside: int, *last: nn.Module) -> nn.Sequential:
    """Two hidden layers of 256."""
    return nn.Sequential(
        nn.Linear(inside, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outside), *last
    )


def heads(inside: int) -> nn.ModuleList:
    """Two Q functions of the same input."""
    return nn.ModuleList(make_mlp(inside, 1) for _ in range(2))


def make_cnn() -> nn.Sequential:
    """(batch, 4, 84, 84) -> (batch, 512)."""
    layers: list[nn.Module] = []
    for (inside, outside, size, stride), edge in zip(
        ((4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)), (20, 9, 7), strict=True
    ):
        layers += [
            nn.Conv2d(inside, outside, size, stride),
            nn.LayerNorm((outside, edge, edge)),
            nn.LeakyReLU(0.01),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, 512), nn.LayerNorm(512), nn.LeakyReLU(0.01))


class Gpt(nn.Module):
    """A decoder in the shape of GPT-2, its head tied to the embedding: (batch, time) -> (batch, time, words)."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, words: int = 50257) -> None:
        super().__init__()
        self.words = words
        self.token, self.place = nn.Embedding(words, width), nn.Embedding(1024, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.last = nn.LayerNorm(width)
        for embedding in (self.token, self.place):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return functional.linear(
            self.last(self.blocks(self.token(tokens) + self.place(places))), self.token.weight
        )


class Block(nn.Module):
    """Causal attention and an MLP, each added to what enters."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.mixed, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        split = self.mixed(self.before(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*split.unbind(), is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp(x)


class Scales(nn.Module):
    """Many small tensors that cost little besides being many."""

    SIZE = 64

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.elements = tensors * self.SIZE
        self.scales = nn.ParameterList(nn.Parameter(torch.randn(self.SIZE)) for _ in range(tensors))

    def forward(self, x: Tensor) -> Tensor:
        return (x * torch.cat(list(self.scales))).tanh()
