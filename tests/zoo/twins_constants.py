"""Outputs that do not depend on what comes in, each with its repaired twin: normalised over one, rounded, signed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import mlp, norm, optimized, silent
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


@fault_and_repair(Verdict("zero", "constant", module="net", remedy=("softmax|class|one",)))
def softmax_over_one_output(run: Run, fixed: bool) -> None:
    """A binary classifier with one output and a softmax: it is always sure of the one class there is."""
    net = mlp(6, 16, 1)
    act = torch.sigmoid if fixed else lambda logits: logits.softmax(-1)

    def loss() -> Tensor:
        x = torch.randn(32, 6)
        return functional.binary_cross_entropy(act(net(x)), (x[:, :1] > 0).float())

    optimized(run, {"net": net}, loss, lambda: silent(net))


@fault_and_repair(Verdict("zero", "constant|zero-loss", module="net", remedy=("class|one|softmax",)))
def cross_entropy_of_one_class(run: Run, fixed: bool) -> None:
    """Regression head kept, loss changed to a cross entropy: over one class it is 0."""
    net = mlp(6, 16, 2 if fixed else 1)

    def loss() -> Tensor:
        x = torch.randn(32, 6)
        labels = (x[:, 0] > 0).long() if fixed else torch.zeros(32, dtype=torch.long)
        return functional.cross_entropy(net(x), labels)

    optimized(run, {"net": net}, loss, lambda: silent(net))


@fault_and_repair(Verdict("zero", "constant|zero-loss", module="encoder", remedy=("one|class|softmax|batch",)))
def contrast_within_a_batch_of_one(run: Run, fixed: bool) -> None:
    """InfoNCE with one sample a device: the positive is the only candidate."""
    encoder, size = mlp(6, 16, 8), 8 if fixed else 1

    def loss() -> Tensor:
        x = torch.randn(size, 6)
        first, second = (functional.normalize(encoder(x + 0.1 * torch.randn(size, 6)), dim=1) for _ in range(2))
        return functional.cross_entropy(first @ second.T / 0.1, torch.arange(size))

    optimized(run, {"encoder": encoder}, loss, lambda: silent(encoder))


class GraphAttention(nn.Module):
    """Attention over the neighbours of each node; ``dim`` is the one that the softmax runs over."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lift, self.score, self.head, self.dim = nn.Linear(4, 8), nn.Linear(16, 1), nn.Linear(8, 1), dim

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        pairs = torch.cat([h[:, :, None].expand(-1, -1, 6, -1), h[:, None].expand(-1, 6, -1, -1)], -1)
        attention = functional.leaky_relu(self.score(pairs), 0.2).softmax(self.dim)
        return self.head((attention * h[:, None]).sum(2))  # type: ignore[no-any-return]


@fault_and_repair(Verdict("zero", "constant", module="score", remedy=("softmax|one",)))
def attention_normalised_over_its_heads(run: Run, fixed: bool) -> None:
    """The softmax of a graph attention runs over the last dimension, which is one head, not over neighbours."""
    net = GraphAttention(2 if fixed else -1)

    def loss() -> Tensor:
        x = torch.randn(4, 6, 4)
        return functional.mse_loss(net(x), x.amax(1, keepdim=True)[..., :1].expand(-1, 6, -1))

    optimized(run, net, loss, lambda: silent(net.score) and norm(net.lift) > 0)


@fault_and_repair(Verdict("zero", "constant", module="excite", remedy=("norm|one|group",)), also=("vanishing",))
def group_norm_of_single_channels(run: Run, fixed: bool) -> None:
    """Squeeze and excitation over 1 x 1 pictures, with as many groups as channels: each group is one number."""
    squeeze, excite = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
    normed, head = nn.GroupNorm(1 if fixed else 4, 4), nn.Linear(4, 2)

    def loss() -> Tensor:
        x, labels = torch.randn(8, 1, 6, 6), torch.randint(2, (8,))
        h = torch.tanh(squeeze(x + labels[:, None, None, None]))
        gate = torch.sigmoid(normed(excite(h.mean((2, 3), keepdim=True))))
        return functional.cross_entropy(head((h * gate).mean((2, 3))), labels)

    parts: dict[str, nn.Module] = {"squeeze": squeeze, "excite": excite, "norm": normed, "head": head}
    optimized(run, parts, loss, lambda: norm(excite) < 1e-6 * norm(head))


def through(run: Run, function: Callable[[Tensor], Tensor]) -> None:
    """An encoder, the function, and a decoder that shall give the input back."""
    encoder, decoder = mlp(6, 16, 4), mlp(4, 16, 6)

    def loss() -> Tensor:
        x = torch.randn(32, 6)
        return functional.mse_loss(decoder(function(encoder(x))), x)

    parts: dict[str, nn.Module] = {"encoder": encoder, "decoder": decoder}
    optimized(run, parts, loss, lambda: silent(encoder) and norm(decoder) > 0)


@fault_and_repair(Verdict("zero", "constant", module="encoder", remedy=("straight|smooth|slope|surrogate",)))
def hash_code_by_its_sign(run: Run, fixed: bool) -> None:
    """Deep hashing: the code is the sign of the output, without a straight-through gradient."""
    through(run, torch.tanh if fixed else torch.sign)


@fault_and_repair(Verdict("zero", "constant", module="encoder", remedy=("straight|smooth|slope|surrogate",)))
def activations_rounded_to_eight_bits(run: Run, fixed: bool) -> None:
    """Training that knows of quantisation, with a plain ``round``."""

    def quantised(x: Tensor) -> Tensor:
        rounded = (x * 16).round().clamp(-128, 127) / 16
        return x + (rounded - x).detach() if fixed else rounded

    through(run, quantised)


@fault_and_repair(Verdict("zero", "constant|detached", module="encoder"))
def spikes_without_a_surrogate(run: Run, fixed: bool) -> None:
    """A spiking net: a neuron fires where its potential is above the threshold, which has no slope."""

    def spike(x: Tensor) -> Tensor:
        fired = torch.heaviside(x.detach(), torch.ones(()))
        return fired + (torch.sigmoid(4 * x) - torch.sigmoid(4 * x).detach()) if fixed else fired

    through(run, spike)


@fault_and_repair(Verdict("zero", "constant", module="locate", remedy=("nearest|bilinear|smooth|slope",)))
def transformer_of_space_that_samples_the_nearest(run: Run, fixed: bool) -> None:
    """Where ``grid_sample`` takes the nearest pixel, the grid has no gradient."""
    locate, classify = nn.Linear(36, 6), nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    with torch.no_grad():
        locate.weight.mul_(0.1)
        locate.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def loss() -> Tensor:
        x, labels = torch.randn(8, 1, 6, 6), torch.randint(2, (8,))
        grid = functional.affine_grid(locate(x.flatten(1)).view(-1, 2, 3), [8, 1, 6, 6], align_corners=False)
        mode = "bilinear" if fixed else "nearest"
        return functional.cross_entropy(
            classify(functional.grid_sample(x, grid, mode, align_corners=False)), labels
        )

    parts: dict[str, nn.Module] = {"locate": locate, "classify": classify}
    optimized(run, parts, loss, lambda: silent(locate) and norm(classify) > 0)
