"""Diffusion, flows, variational and adversarial nets, each with its repaired twin."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from tests.zoo.faults_nonfinite import GoingBack, bad
from tests.zoo.nets import mlp, norm, optimized, silent
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


class Denoiser(nn.Module):
    """Predicts noise of what is noisy, the time and a label."""

    def __init__(self, with_time: bool = True) -> None:
        super().__init__()
        self.time, self.labels = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 8)), nn.Embedding(4, 8)
        self.first, self.last, self.with_time = nn.Linear(6, 8), nn.Linear(8, 6), with_time
        self.register_buffer("null", torch.zeros(8))

    def forward(self, x: Tensor, t: Tensor, label: Tensor, dropped: Tensor) -> Tensor:
        condition = torch.where(dropped[:, None], self.null, self.labels(label))
        embedded = self.time(t[:, None])
        h = self.first(x) + condition
        return self.last(functional.silu(h + embedded if self.with_time else h))  # type: ignore[no-any-return]


def denoised(
    run: Run,
    net: Denoiser,
    ill: Callable[[], bool],
    drop: float = 0.1,
    weight: Callable[[Tensor], Tensor] = torch.ones_like,
) -> None:
    def loss() -> Tensor:
        x, t, label = torch.randn(32, 6), torch.rand(32), torch.randint(4, (32,))
        noise = torch.randn_like(x)
        noisy = (1 - t[:, None]).sqrt() * (x + label[:, None]) + t[:, None].sqrt() * noise
        each = (net(noisy, t, label, torch.rand(32) < drop) - noise).square().mean(1)
        return (weight(t) * each).mean()

    optimized(run, dict(net.named_children()), loss, ill)


@fault_and_repair(Verdict("zero", "detached", module="time", where=("time",)))
def time_that_is_embedded_and_not_added(run: Run, fixed: bool) -> None:
    net = Denoiser(with_time=fixed)
    denoised(run, net, lambda: silent(net.time) and norm(net.first) > 0)


@fault_and_repair(Verdict("zero", "masked", module="labels"))
def guidance_that_drops_each_label(run: Run, fixed: bool) -> None:
    """Classifier-free guidance: a label should be dropped in one of ten cases, and is in all of them."""
    net = Denoiser()
    denoised(run, net, lambda: silent(net.labels) and norm(net.first) > 0, drop=0.1 if fixed else 1.1)


@fault_and_repair(*(Verdict("zero", "zero-loss", module=part) for part in ("time", "labels", "first", "last")))
def weights_of_the_loss_rounded_to_nothing(run: Run, fixed: bool) -> None:
    """Min-SNR weights by a whole division: what is below 1 becomes 0."""
    net = Denoiser()

    def weight(t: Tensor) -> Tensor:
        least = torch.minimum((1 - t) / t, torch.full_like(t, 0.9))
        return least if fixed else least // 1

    denoised(run, net, lambda: silent(net), weight=weight)


@fault_and_repair(Verdict("nonfinite", "nonfinite-loss"), also=("zero",))
def schedule_with_one_value_that_is_none(run: Run, fixed: bool) -> None:
    """The cumulated alphas exceed 1 by rounding at the first time: the root of 1 - alpha is NaN in the table."""
    alphas = torch.linspace(1.0 if fixed else 1.0000001, 0.01, 8)
    clean, noisy = alphas.sqrt(), (1 - alphas).sqrt()
    net = mlp(7, 16, 6)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    going_back = GoingBack(net, optimizer)
    with run.track(optimizer, net):
        for step in run.steps(30):
            x, noise, t = torch.randn(16, 6), torch.randn(16, 6), torch.randint(1, 8, (16,))
            t[0] = 0 if step % 9 == 8 else 1
            given = torch.cat([clean[t, None] * x + noisy[t, None] * noise, t[:, None] / 8], 1)
            optimizer.zero_grad()
            functional.mse_loss(net(given), noise).backward()
            run.fault(bad(net))
            going_back.step()


class Coupling(nn.Module):
    """One half is kept and says how the other is scaled and moved; the mask says which is kept."""

    def __init__(self, mask: Tensor, limit: float | None = None) -> None:
        super().__init__()
        self.scale, self.move, self.mask, self.limit = mlp(6, 8, 6), mlp(6, 8, 6), mask, limit

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x * self.mask
        scale = self.scale(kept) if self.limit is None else self.scale(kept).clamp(-self.limit, self.limit)
        scale = scale * (1 - self.mask)
        return kept + (1 - self.mask) * (x * scale.exp() + self.move(kept)), scale.sum(1)


def flowed(run: Run, first: Coupling, second: Coupling, ill: Callable[[], bool]) -> None:
    def loss() -> Tensor:
        x = torch.randn(32, 6) * 2 + 1
        x, one = first(x)
        x, other = second(x)
        return (x.square().sum(1) / 2 - one - other).mean()

    scales = {"scale1": first.scale, "move1": first.move, "scale2": second.scale, "move2": second.move}
    optimized(run, scales, loss, ill)


@fault_and_repair(
    Verdict("zero", "masked|zero-factor", module="scale2"), Verdict("zero", "masked|zero-factor", module="move2")
)
def coupling_whose_mask_keeps_everything(run: Run, fixed: bool) -> None:
    half = torch.tensor([1.0, 1, 1, 0, 0, 0])
    first, second = Coupling(half), Coupling(1 - half if fixed else torch.ones(6))
    flowed(run, first, second, lambda: silent(second) and norm(first) > 0)


@fault_and_repair(Verdict("zero", "clamped", module="scale1"))
def flow_whose_scales_are_all_at_their_limit(run: Run, fixed: bool) -> None:
    half = torch.tensor([1.0, 1, 1, 0, 0, 0])
    first, second = Coupling(half, limit=2.0), Coupling(1 - half)
    if not fixed:
        nn.init.constant_(first.scale[2].bias, -5.0)
    flowed(run, first, second, lambda: silent(first.scale) and norm(second) > 0)


class Variational(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.encoder, self.mean, self.logvar = nn.Sequential(nn.Linear(6, 16), nn.Tanh()), *_heads()
        self.decoder, self.how = mlp(3, 16, 6), how

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, logvar = self.mean(h), self.logvar(h)
        std = (logvar / 2).exp()
        latent = {
            "reparametrised": lambda: mean + std * torch.randn_like(std),
            "sampled": lambda: Normal(mean, std).sample(),
            "mean": lambda: mean,
        }[self.how]()
        return self.decoder(latent), mean, logvar


def _heads() -> tuple[nn.Linear, nn.Linear]:
    return nn.Linear(16, 3), nn.Linear(16, 3)


def encoded(run: Run, net: Variational, beta: float, ill: Callable[[], bool]) -> None:
    def loss() -> Tensor:
        x = torch.randn(32, 6)
        decoded, mean, logvar = net(x)
        divergence = -(1 + logvar - mean.square() - logvar.exp()).sum(1).mean() / 2
        reconstruction = functional.mse_loss(decoded, x)
        return reconstruction + beta * divergence if beta >= 0 else reconstruction

    optimized(run, dict(net.named_children()), loss, ill)


@fault_and_repair(*(Verdict("zero", "detached", module=part) for part in ("encoder", "mean", "logvar")))
def latent_drawn_by_sample(run: Run, fixed: bool) -> None:
    """``sample`` in place of ``rsample``, and no divergence yet: the decoder's loss does not reach the encoder."""
    net = Variational("reparametrised" if fixed else "sampled")
    encoded(run, net, -1.0, lambda: silent(net.encoder) and norm(net.decoder) > 0)


@fault_and_repair(Verdict("zero", "zero-loss", module="logvar"))
def divergence_whose_weight_never_anneals(run: Run, fixed: bool) -> None:
    """``step // total`` in the annealing of beta; the latent is the mean until then."""
    net = Variational("mean")
    encoded(run, net, 5 / 100 if fixed else 5 // 100, lambda: silent(net.logvar) and norm(net.encoder) > 0)


@fault_and_repair(Verdict("zero", "saturated-tanh", module="generator", optimizer="g"))
def generator_beyond_its_tanh(run: Run, fixed: bool) -> None:
    """Pictures are scaled to 0..255 while the generator's tanh ends at 1: it is driven to its ends and stays."""
    generator, critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), mlp(8, 8, 1)
    if not fixed:
        nn.init.constant_(generator[0].bias, 20.0)
    optimizers = {
        "g": torch.optim.Adam(generator.parameters(), lr=1e-3),
        "d": torch.optim.Adam(critic.parameters(), lr=1e-3),
    }
    with run.track(optimizers, {"generator": generator, "critic": critic}):
        for _ in run.steps(40):
            made, real = generator(torch.randn(16, 4)), torch.rand(16, 8)
            optimizers["d"].zero_grad()
            (functional.softplus(-critic(real)) + functional.softplus(critic(made.detach()))).mean().backward()
            optimizers["d"].step()
            optimizers["g"].zero_grad()
            functional.softplus(-critic(made)).mean().backward()
            run.fault(silent(generator))
            optimizers["g"].step()
