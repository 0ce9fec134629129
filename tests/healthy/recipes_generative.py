"""Usual recipes of generative nets, small: points of a spiral of two arms in two dimensions, and gratings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.lr_scheduler import CosineAnnealingLR

from tests.healthy.fitted import fitted, mlp, warmed
from tests.healthy.run import Run
from tests.healthy.vision import gratings

__all__ = ["adversarial", "diffusion", "flow_matching", "real_nvp", "vae", "vq"]


def spiral(count: int) -> Tensor:
    """Points of shape (count, 2), about 1 in size."""
    t = 0.5 + 2.5 * torch.rand(count)
    arm = torch.randint(2, (count,)) * math.pi
    points = torch.stack([t * torch.cos(t * 2 + arm), t * torch.sin(t * 2 + arm)], 1)
    return points / 1.5 + 0.05 * torch.randn(count, 2)


def distance(one: Tensor, other: Tensor) -> float:
    """The energy distance of two sets of points (Székely and Rizzo 2013)."""
    apart = 2 * torch.cdist(one, other).mean() - torch.cdist(one, one).mean() - torch.cdist(other, other).mean()
    return float(apart)


class Unet(nn.Module):
    """Down once and up once, with the time added in the middle."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 2 * width))
        self.enter, self.down = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2 * width, 4, 2, 1)
        self.norm, self.middle = nn.GroupNorm(4, 2 * width), nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up, self.leave = nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.Conv2d(2 * width, 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        self.register_buffer("waves", torch.exp(torch.linspace(0, 5, 8)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * self.waves
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))[:, :, None, None]
        first = functional.silu(self.enter(x))
        h = functional.silu(self.norm(self.down(first) + time))
        h = self.up(h + functional.silu(self.middle(h)))
        return self.leave(torch.cat([first, h], 1))  # type: ignore[no-any-return]


def diffusion(run: Run, *, velocity: bool = False, rate: float = 1e-3) -> None:
    """A cosine schedule; noise or velocity is predicted, the latter with Min-SNR weights; an average is kept."""
    model, (images, _) = Unet(), gratings(512)
    images = images / images.std()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), rate)

    def loss() -> Tensor:
        x, t = images[torch.randint(512, (16,))], torch.rand(16) * 0.98 + 0.01
        clean, noisy = ((f(t * math.pi / 2))[:, None, None, None] for f in (torch.cos, torch.sin))
        noise = torch.randn_like(x)
        wanted = clean * noise - noisy * x if velocity else noise
        each = (model(clean * x + noisy * noise, t) - wanted).square().mean((1, 2, 3))
        ratio = (clean / noisy).square().flatten()
        return (each * (ratio.clamp(max=5) / (ratio + 1) if velocity else 1.0)).mean()

    def follow() -> None:
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.data.lerp_(new.data, 0.01)

    fitted(run, model, loss, optimizer, schedule=warmed(optimizer, 50, lambda _: 1.0), limit=1.0, after=follow)


def flow_matching(run: Run) -> None:
    """The straight way from noise to data, and its velocity (Lipman et al. 2023)."""
    model = mlp(3, 64, 64, 2, act=nn.SiLU)

    def loss() -> Tensor:
        x, noise, t = spiral(128), torch.randn(128, 2), torch.rand(128, 1)
        return functional.mse_loss(model(torch.cat([t * x + (1 - t) * noise, t], 1)), x - noise)

    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    fitted(run, model, loss, optimizer, schedule=CosineAnnealingLR(optimizer, run.steps))


class Coupling(nn.Module):
    def __init__(self, flipped: bool) -> None:
        super().__init__()
        self.net, self.flipped = mlp(1, 32, 32, 2), flipped
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, other = x.flip(1).chunk(2, 1) if self.flipped else x.chunk(2, 1)
        scale, move = self.net(kept).chunk(2, 1)
        scale = 2 * torch.tanh(scale / 2)
        return torch.cat([kept, other * scale.exp() + move], 1), scale.sum(1)


def real_nvp(run: Run, *, rate: float = 1e-3) -> None:
    """Six couplings that begin as the identity (Dinh et al. 2017)."""
    model = nn.ModuleList(Coupling(flipped=bool(i % 2)) for i in range(6))

    def loss() -> Tensor:
        x, change = spiral(128), torch.zeros(128)
        for layer in model:
            x, more = layer(x)
            change = change + more
        return (x.square().sum(1) / 2 - change).mean()

    optimizer = torch.optim.Adam(model.parameters(), rate)
    fitted(run, model, loss, optimizer, limit=5.0)


def vae(run: Run, *, warm_up: int = 200, beta: float = 1.0) -> None:
    """The weight of the divergence rises from 0, as against collapse."""
    images = gratings(1024)[0].flatten(1)
    images = images / images.std()
    parts = {
        "encoder": mlp(768, 64, 64),
        "mean": nn.Linear(64, 8),
        "logvar": nn.Linear(64, 8),
        "decoder": mlp(8, 64, 768),
    }
    model = nn.ModuleDict(parts)
    made = [0]

    def loss() -> Tensor:
        made[0] += 1
        x = images[torch.randint(1024, (32,))]
        h = torch.relu(model["encoder"](x))
        mean, logvar = model["mean"](h), model["logvar"](h)
        decoded = model["decoder"](mean + (logvar / 2).exp() * torch.randn_like(mean))
        divergence = -(1 + logvar - mean.square() - logvar.exp()).sum(1).mean() / 2
        return (decoded - x).square().sum(1).mean() / 2 + beta * min(1.0, made[0] / warm_up) * divergence

    fitted(run, model, loss, torch.optim.Adam(model.parameters(), 1e-3))


def vq(run: Run) -> None:
    """Straight through the nearest code, with the loss of the codebook and the commitment."""
    images = functional.avg_pool2d(gratings(1024)[0], 5, 1, 2)
    images = images / images.std()
    encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.ReLU(), nn.Conv2d(32, 4, 1))
    codes = nn.Embedding(64, 4)
    decoder = nn.Sequential(nn.Conv2d(4, 32, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 4))
    reached: list[float] = []
    model = nn.ModuleDict({"encoder": encoder, "codes": codes, "decoder": decoder})

    def loss() -> Tensor:
        x = images[torch.randint(1024, (16,))]
        z = encoder(x).permute(0, 2, 3, 1)
        code = codes(torch.cdist(z.detach().reshape(-1, 4), codes.weight.detach()).argmin(1)).view_as(z)
        given = (z + (code - z).detach()).permute(0, 3, 1, 2)
        committed = functional.mse_loss(code, z.detach()) + 0.25 * functional.mse_loss(z, code.detach())
        reconstruction = functional.mse_loss(decoder(given), x)
        reached.append(reconstruction.item())
        return reconstruction + committed

    fitted(run, model, loss, torch.optim.Adam(model.parameters(), 2e-3), reached=reached)


Losses = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]

LOSSES: dict[str, Losses] = {
    "saturating": (
        lambda real, made: (functional.softplus(-real) + functional.softplus(made)).mean(),
        lambda made: functional.softplus(-made).mean(),
    ),
    "hinge": (
        lambda real, made: (torch.relu(1 - real) + torch.relu(1 + made)).mean(),
        lambda made: -made.mean(),
    ),
    "wasserstein": (lambda real, made: (made - real).mean(), lambda made: -made.mean()),
}


def adversarial(
    run: Run, *, kind: str = "saturating", critics: int = 1, rates: tuple[float, float] = (5e-4, 5e-4)
) -> None:
    """Points of a spiral: the loss of Goodfellow et al., hinges under a spectral norm, or Wasserstein with a penalty."""
    generator, critic = (
        mlp(4, 64, 64, 2),
        mlp(2, 64, 64, 1, act=nn.Softplus if kind == "wasserstein" else nn.LeakyReLU),
    )
    if kind == "hinge":
        critic = nn.Sequential(*(spectral_norm(p) if isinstance(p, nn.Linear) else p for p in critic))
    betas = (0.0, 0.9) if kind == "wasserstein" else (0.5, 0.999)
    optimizers = {
        "g": torch.optim.Adam(generator.parameters(), rates[0], betas=betas),
        "d": torch.optim.Adam(critic.parameters(), rates[1], betas=betas),
    }
    of_critic, of_generator = LOSSES[kind]
    with run.track(optimizers, {"generator": generator, "critic": critic}):
        for _ in range(run.steps // (1 + critics)):
            for _ in range(critics):
                real, made = spiral(64), generator(torch.randn(64, 4)).detach()
                loss = of_critic(critic(real), critic(made))
                if kind == "wasserstein":
                    between = torch.lerp(real, made, torch.rand(64, 1)).requires_grad_()
                    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
                    loss = loss + 10 * (slope.norm(dim=1) - 1).square().mean()
                optimizers["d"].zero_grad()
                loss.backward()
                optimizers["d"].step()
            critic.requires_grad_(False)
            made = generator(torch.randn(64, 4))
            optimizers["g"].zero_grad()
            of_generator(critic(made)).backward()
            optimizers["g"].step()
            critic.requires_grad_(True)
            run.reached.append(distance(made.detach(), spiral(64)))
