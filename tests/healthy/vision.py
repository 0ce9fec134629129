"""A small ResNet learns to tell gratings apart, by their direction and width, in noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.healthy.run import Run

__all__ = ["resnet"]

IMAGES, SIZE, BATCH = 4096, 16, 32
DIRECTIONS, WIDTHS = 5, 2


def resnet(
    run: Run,
    *,
    rate: float = 0.1,
    limit: float | None = None,
    accumulated: int = 1,
    precision: torch.dtype = torch.float32,
) -> None:
    images, classes = gratings(IMAGES)
    model = ResNet(DIRECTIONS * WIDTHS)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [run.steps // 2, run.steps * 3 // 4])
    with run.track(optimizer, model):
        for _ in range(run.steps):
            optimizer.zero_grad()
            losses = []
            for _ in range(accumulated):
                chosen = torch.randint(IMAGES, (BATCH,))
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                    loss = nn.functional.cross_entropy(model(moved(images[chosen])), classes[chosen])
                (loss / accumulated).backward()
                losses.append(loss.item())
            if limit is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            schedule.step()
            run.reached.append(sum(losses) / accumulated)


class Block(nn.Module):
    """Two convolutions beside a short way (He et al. 2016)."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(leaving)
        self.short = nn.Identity()
        if stride != 1 or entering != leaving:
            self.short = nn.Sequential(
                nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.short(x))


class ResNet(nn.Module):
    """A stem, three stages of one block and a head; images are (batch, 3, 16, 16)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.stage1 = Block(8, 8, 1)
        self.stage2 = Block(8, 16, 2)
        self.stage3 = Block(16, 32, 2)
        self.head = nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        return self.head(features.mean((2, 3)))


def gratings(count: int) -> tuple[Tensor, Tensor]:
    """Images of any phase and colour, and the class of each: its direction and its width."""
    classes = torch.randint(DIRECTIONS * WIDTHS, (count,))
    angle = (classes % DIRECTIONS) * math.pi / DIRECTIONS
    frequency = 0.8 + 0.6 * (classes // DIRECTIONS)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    along = x * angle.cos().view(-1, 1, 1) + y * angle.sin().view(-1, 1, 1)
    phase = 2 * math.pi * torch.rand(count, 1, 1)
    waves = torch.sin(frequency.view(-1, 1, 1) * along + phase)
    colour = torch.randn(count, 3, 1, 1)
    return colour * waves.unsqueeze(1) + torch.randn(count, 3, SIZE, SIZE), classes


def moved(images: Tensor) -> Tensor:
    """A random shift, and noise of its own at each look."""
    shift = (int(torch.randint(SIZE, ())), int(torch.randint(SIZE, ())))
    return images.roll(shift, (2, 3)) + 0.5 * torch.randn_like(images)
