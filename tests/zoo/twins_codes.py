"""Codebooks and contrastive losses, each with its repaired twin."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import mlp, norm, optimized, silent
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


class Quantised(nn.Module):
    """An autoencoder whose latent is the nearest vector of a codebook."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.codes, self.decoder = mlp(6, 16, 4), nn.Embedding(8, 4), mlp(4, 16, 6)

    def nearest(self, z: Tensor) -> Tensor:
        return self.codes(torch.cdist(z.detach(), self.codes.weight.detach()).argmin(1))  # type: ignore[no-any-return]


def quantised(run: Run, net: Quantised, loss: Callable[[Tensor], Tensor], ill: Callable[[], bool]) -> None:
    parts = dict(net.named_children())
    optimized(run, parts, lambda: loss(torch.randn(32, 6)), ill)


@fault_and_repair(Verdict("zero", "detached", module="encoder", where=("encoder",)))
def codebook_without_a_straight_path(run: Run, fixed: bool) -> None:
    """The decoder is given the code itself: nothing leads from it back to the encoder."""
    net = Quantised()

    def loss(x: Tensor) -> Tensor:
        z = net.encoder(x)
        code = net.nearest(z)
        given = z + (code - z).detach() if fixed else code
        return functional.mse_loss(net.decoder(given), x) + functional.mse_loss(code, z.detach())

    quantised(run, net, loss, lambda: silent(net.encoder) and norm(net.codes) > 0)


@fault_and_repair(Verdict("zero", "detached", module="codes", where=("codes",)))
def codebook_that_only_the_encoder_commits_to(run: Run, fixed: bool) -> None:
    """The loss that moves the codes was left out: the straight-through path detaches them."""
    net = Quantised()

    def loss(x: Tensor) -> Tensor:
        z = net.encoder(x)
        code = net.nearest(z)
        committed = functional.mse_loss(z, code.detach()) / 4
        moved = functional.mse_loss(code, z.detach()) if fixed else torch.zeros(())
        return functional.mse_loss(net.decoder(z + (code - z).detach()), x) + committed + moved

    quantised(run, net, loss, lambda: silent(net.codes) and norm(net.encoder) > 0)


@fault_and_repair(Verdict("zero", "detached", module="predictor", where=("predictor",)))
def stop_gradient_on_the_wrong_side(run: Run, fixed: bool) -> None:
    """SimSiam: what is predicted should be detached, not the prediction."""
    encoder, predictor = mlp(6, 16, 8), mlp(8, 16, 8)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        first, second = (encoder(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        predicted, wanted = predictor(first), second
        predicted, wanted = (predicted, wanted.detach()) if fixed else (predicted.detach(), wanted)
        return -functional.cosine_similarity(predicted, wanted, dim=1).mean()

    parts: dict[str, nn.Module] = {"encoder": encoder, "predictor": predictor}
    optimized(run, parts, loss, lambda: silent(predictor) and norm(encoder) > 0)


@fault_and_repair(Verdict("zero", "zero-loss", module="encoder"))
def contrast_without_any_positive(run: Run, fixed: bool) -> None:
    """Supervised contrast: with a class a sample there are no pairs, and the mask of positives is empty."""
    encoder, off = mlp(6, 16, 8), ~torch.eye(16, dtype=torch.bool)

    def loss() -> Tensor:
        x, labels = torch.randn(16, 6), torch.arange(16) % (4 if fixed else 16)
        z = functional.normalize(encoder(x + labels[:, None]), dim=1)
        log_share = (z @ z.T / 0.1).masked_fill(~off, -1e9).log_softmax(1)
        positive = (labels[:, None] == labels) & off
        return -((log_share * positive).sum(1) / positive.sum(1).clamp(min=1)).mean()

    optimized(run, {"encoder": encoder}, loss, lambda: silent(encoder))


class Pairs(nn.Module):
    """Two towers and a temperature, as CLIP has them."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.pictures, self.words = mlp(6, 16, 8), mlp(5, 16, 8)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, pictures: Tensor, words: Tensor) -> Tensor:
        one, other = (functional.normalize(z, dim=1) for z in (self.pictures(pictures), self.words(words)))
        return self.logit_scale.exp().clamp(max=100) * one @ other.T


@fault_and_repair(Verdict("zero", "clamped", module="(root)"))
def temperature_beyond_its_limit(run: Run, fixed: bool) -> None:
    """The scale of CLIP starts from 1000 and is clamped to 100: it can never come back."""
    net = Pairs(14.0 if fixed else 1000.0)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        logits = net(x, x[:, :5] + 0.1 * torch.randn(16, 5))
        return (
            functional.cross_entropy(logits, torch.arange(16))
            + functional.cross_entropy(logits.T, torch.arange(16))
        ) / 2

    optimized(run, net, loss, lambda: silent([net.logit_scale]) and norm(net.pictures) > 0)


@fault_and_repair(Verdict("zero", "no-grad", module="online", where=("online",)), also=("zero",))
def bootstrap_with_its_nets_exchanged(run: Run, fixed: bool) -> None:
    """BYOL: the online net runs under ``no_grad`` where the target should, which no optimizer holds."""
    online, target, predictor = mlp(6, 16, 8), mlp(6, 16, 8), mlp(8, 16, 8)
    held = [*online.parameters(), *predictor.parameters()]
    target.requires_grad_(not fixed)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        learner, teacher = (online, target) if fixed else (target, online)
        with torch.no_grad():
            wanted = teacher(x + 0.1 * torch.randn_like(x))
        return -functional.cosine_similarity(predictor(learner(x)), wanted, dim=1).mean()

    parts: dict[str, nn.Module] = {"online": online, "predictor": predictor}
    optimized(run, parts, loss, lambda: silent(online) and norm(predictor) > 0, torch.optim.Adam(held, lr=1e-3))


@fault_and_repair(Verdict("zero", "zero-loss", module="encoder"))
def triplets_that_are_all_easy(run: Run, fixed: bool) -> None:
    """Negatives come from another data set: each is farther than the margin from the start."""
    encoder = mlp(6, 16, 8)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        far = torch.randn(16, 6) if fixed else torch.randn(16, 6) + 30
        margin = 1.0 if fixed else 0.01
        return functional.triplet_margin_loss(encoder(x), encoder(x + 0.001), encoder(far), margin=margin)

    optimized(run, {"encoder": encoder}, loss, lambda: silent(encoder))
