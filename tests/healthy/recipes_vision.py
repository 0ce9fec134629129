"""Usual recipes of vision and of representations, small: gratings in noise are told apart."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, OneCycleLR, StepLR

from tests.healthy.fitted import fitted, mlp, warmed
from tests.healthy.run import Run
from tests.healthy.vision import DIRECTIONS, WIDTHS, ResNet, gratings

__all__ = [
    "convnext",
    "distilled",
    "low_rank",
    "plain",
    "resnet_one_cycle",
    "resnet_restarts",
    "simclr",
    "triplets",
    "vit",
]

CLASSES = DIRECTIONS * WIDTHS


class Batches:
    """Batches of images and classes, drawn anew at each call."""

    def __init__(self, size: int = 32) -> None:
        self.images, self.classes = gratings(2048)
        self.size = size

    def __call__(self) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.images), (self.size,))
        return self.images[chosen], self.classes[chosen]


def classified(model: nn.Module, batches: Batches, smoothing: float = 0.0) -> Tensor:
    images, classes = batches()
    return functional.cross_entropy(model(images), classes, label_smoothing=smoothing)


class ViT(nn.Module):
    """Patches of 4 x 4, a class token, and two layers with their norms first (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.first, self.places = (
            nn.Parameter(torch.zeros(1, 1, width)),
            nn.Parameter(0.02 * torch.randn(1, 17, width)),
        )
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).mT
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.encoder(x)[:, 0])  # type: ignore[no-any-return]


def vit(run: Run, *, rate: float = 1e-3, limit: float | None = 1.0) -> None:
    model, batches = ViT(), Batches()
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    falling = lambda step: 0.5 * (1 + math.cos(math.pi * step / run.steps))  # noqa: E731
    schedule = warmed(optimizer, max(1, run.steps // 10), falling)
    fitted(run, model, lambda: classified(model, batches, 0.1), optimizer, schedule=schedule, limit=limit)


def resnet_one_cycle(run: Run, *, rate: float = 0.4) -> None:
    model, batches = ResNet(CLASSES), Batches()
    optimizer = torch.optim.SGD(model.parameters(), rate / 25, momentum=0.9, weight_decay=5e-4)
    schedule = OneCycleLR(optimizer, rate, total_steps=run.steps + 1)
    fitted(run, model, lambda: classified(model, batches), optimizer, schedule=schedule)


def resnet_restarts(run: Run) -> None:
    """SGDR: the rate falls along a cosine and starts anew."""
    model, batches = ResNet(CLASSES), Batches()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = CosineAnnealingWarmRestarts(optimizer, max(1, run.steps // 7), 2)
    fitted(run, model, lambda: classified(model, batches), optimizer, schedule=schedule)


class Next(nn.Module):
    """A block of ConvNeXt: depthwise, norm, wide, a scale that starts small, and dropped at times (Liu et al. 2022)."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 5, padding=2, groups=width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale, self.drop = nn.Parameter(torch.full((width,), 1e-2)), drop

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        h = self.scale * self.narrow(functional.gelu(self.wide(h)))
        kept = (torch.rand(len(x), 1, 1, 1) >= self.drop) / (1 - self.drop)
        return x + kept * h.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def convnext(run: Run) -> None:
    """With an average of its weights, as is usual."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 4, 4),
        Next(16, 0.1),
        Next(16, 0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )
    batches = Batches()
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.05)
    schedule = CosineAnnealingLR(optimizer, run.steps)
    fitted(
        run,
        model,
        lambda: classified(model, batches, 0.1),
        optimizer,
        schedule=schedule,
        after=lambda: average.update_parameters(model),
    )


def plain(run: Run, *, rate: float, momentum: float = 0.0, every: int | None = None) -> None:
    """A plain net and plain SGD."""
    model, batches = nn.Sequential(nn.Flatten(), mlp(768, 64, 64, CLASSES)), Batches()
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum)
    schedule = None if every is None else StepLR(optimizer, every, 0.1)
    fitted(run, model, lambda: classified(model, batches), optimizer, schedule=schedule)


def simclr(run: Run) -> None:
    model, batches = nn.Sequential(ResNet(32), nn.ReLU(), nn.Linear(32, 16)), Batches(48)

    def loss() -> Tensor:
        images, _ = batches()
        views = torch.cat([images + 0.5 * torch.randn_like(images) for _ in range(2)])
        z = functional.normalize(model(views), dim=1)
        scores = (z @ z.T / 0.5).fill_diagonal_(-1e9)
        return functional.cross_entropy(scores, (torch.arange(len(z)) + len(images)) % len(z))

    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-4)
    fitted(run, model, loss, optimizer, schedule=CosineAnnealingLR(optimizer, run.steps))


def triplets(run: Run) -> None:
    """Metric learning with a margin: what is easy has no gradient."""
    model, batches = ResNet(16), Batches(48)

    def loss() -> Tensor:
        images, classes = batches()
        z = functional.normalize(model(images), dim=1)
        apart, same = torch.cdist(z, z), classes[:, None] == classes
        positive = (apart * same).amax(1)
        negative = (apart + 10.0 * same).amin(1)
        return functional.relu(positive - negative + 0.2).mean()

    fitted(run, model, loss, torch.optim.Adam(model.parameters(), 1e-3))


def pretrained(steps: int) -> tuple[nn.Sequential, Batches]:
    """A net that has learned something, before anything is tracked."""
    model, batches = nn.Sequential(nn.Flatten(), mlp(768, 64, 64, CLASSES)), Batches()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        classified(model, batches).backward()
        optimizer.step()
    return model, batches


def distilled(run: Run) -> None:
    teacher, batches = pretrained(200)
    teacher.requires_grad_(False)
    student = nn.Sequential(nn.Flatten(), mlp(768, 16, CLASSES))

    def loss() -> Tensor:
        images, classes = batches()
        logits = student(images)
        soft = functional.kl_div(
            (logits / 4).log_softmax(1),
            (teacher(images) / 4).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        return 0.5 * functional.cross_entropy(logits, classes) + 0.5 * 16 * soft

    fitted(run, student, loss, torch.optim.Adam(student.parameters(), 1e-3))


class LowRank(nn.Module):
    """A frozen layer and a correction that starts from zero (Hu et al. 2022)."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = copy.deepcopy(base).requires_grad_(False)
        self.down, self.up = (
            nn.Linear(base.in_features, rank, bias=False),
            nn.Linear(rank, base.out_features, bias=False),
        )
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2.0 * self.up(self.down(x))  # type: ignore[no-any-return]


def low_rank(run: Run) -> None:
    """Fine-tuning on shuffled classes: adapters in a frozen net, warm-up, clipping."""
    whole, batches = pretrained(300)
    inner = whole[1]
    adapted = [LowRank(layer) if isinstance(layer, nn.Linear) else layer for layer in inner]  # type: ignore[union-attr]
    model = nn.Sequential(nn.Flatten(), *adapted)
    batches.classes = torch.randperm(CLASSES)[batches.classes]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3, weight_decay=0.0)
    schedule = warmed(optimizer, 30, lambda step: 1 - step / (run.steps + 1))
    fitted(run, model, lambda: classified(model, batches), optimizer, schedule=schedule, limit=1.0)
