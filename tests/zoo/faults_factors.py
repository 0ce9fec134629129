"""Products with a factor of zero: the loss's weight, a layer's weight, a layer's input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import convolutions, filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(
    Verdict("zero", "zero-loss", module="depth"),
)
def task_weighed_by_zero(run: Run) -> None:
    """Multi-task: the weight of the second loss was left at its default of 0."""
    body, labels, depth = convolutions(), nn.Linear(6, 3), nn.Linear(6, 1)
    modules = {"body": body, "labels": labels, "depth": depth}
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    weights = {"labels": 1.0, "depth": 0.0}
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            features, target = body(torch.randn(4, 1, 6, 6)), torch.randint(3, (4,))
            losses = {
                "labels": functional.cross_entropy(labels(features), target),
                "depth": (depth(features) - 1).square().mean(),
            }
            trained(optimizer, lambda: sum(weights[task] * loss for task, loss in losses.items()))  # noqa: B023
            run.fault(float(losses["depth"].detach()) > 0 and weights["depth"] == 0 and silent(depth))
            optimizer.step()


@fault(
    Verdict("zero", "zero-loss", module="net"),
)
def margins_all_kept(run: Run) -> None:
    """A triplet loss with a margin of 0.0, on pairs that are far apart: satisfied from the first step on."""
    net, scale = mlp(6, 8, 4), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*net.parameters(), scale], lr=1e-3)
    with run.track(optimizer, {"net": net}):
        for _ in run.steps(25):
            anchor = torch.randn(8, 6)
            near, far = net(anchor + 1e-3), net(anchor + 20.0)
            base = net(anchor)
            distance = (base - near).norm(dim=1) - (base - far).norm(dim=1)
            trained(optimizer, lambda: torch.relu(distance).mean() + (scale - 2).square().sum())  # noqa: B023
            run.fault(all(v < 0 for v in distance.tolist()) and silent(net))
            optimizer.step()


@fault(
    Verdict("zero", "zero-loss", module="words"),
    Verdict("zero", "zero-loss", module="lstm"),
    Verdict("zero", "zero-loss", module="head"),
)
def every_target_ignored(run: Run) -> None:
    """A language model: the collator replaced each label by -100. The loss is a sum, so it is 0 and not NaN."""
    words, lstm, head = nn.Embedding(12, 6), nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 12)
    modules = nn.ModuleDict({"words": words, "lstm": lstm, "head": head})
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-3)
    with run.track(optimizer, dict(modules.items())):
        for _ in run.steps(25):
            tokens = torch.randint(12, (4, 5))
            targets = torch.full_like(tokens, -100)
            logits = head(lstm(words(tokens))[0])
            trained(optimizer, lambda: functional.cross_entropy(logits.mT, targets, reduction="sum"))  # noqa: B023
            run.fault(bool((targets == -100).all()) and silent(modules))
            optimizer.step()


@fault(
    Verdict("zero", "zero-loss", module="posterior"),
)
def annealing_that_never_starts(run: Run) -> None:
    """VAE without sampling: the divergence is weighed by an annealing that an integer division keeps at 0."""
    encoder, posterior, decoder = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 6)
    centre = nn.Linear(8, 4)
    modules = {"encoder": encoder, "centre": centre, "posterior": posterior, "decoder": decoder}
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    with run.track(optimizer, modules):
        for step in run.steps(25):
            x = torch.randn(8, 6)
            hidden = torch.tanh(encoder(x))
            mu, logarithm = centre(hidden), posterior(hidden)
            divergence = 0.5 * (mu.square() + logarithm.exp() - logarithm - 1).sum(1).mean()
            beta = torch.tensor(float(step // 1000))
            trained(optimizer, lambda: functional.mse_loss(decoder(mu), x) + beta * divergence)  # noqa: B023
            run.fault(beta.item() == 0 and divergence.item() > 0 and silent(posterior) and norm(centre) > 0)
            optimizer.step()


class Adapter(nn.Module):
    """Low rank, with *both* factors from zero: neither can move the other."""

    def __init__(self, size: int = 6, rank: int = 2) -> None:
        super().__init__()
        self.down = filled(nn.Linear(size, rank, bias=False), weight=0.0)
        self.up = filled(nn.Linear(rank, size, bias=False), weight=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))  # type: ignore[no-any-return]


@fault(
    Verdict("zero", "zero-weight", module="adapter", where=("adapter.up",)),
)
def low_rank_adapter_with_both_factors_zero(run: Run) -> None:
    """Of ``down`` it is the weight above that is zero; of ``up`` it would be the input."""
    base, adapter, head = nn.Linear(6, 6).requires_grad_(False), Adapter(), nn.Linear(6, 1)
    optimizer = torch.optim.AdamW([*adapter.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"adapter": adapter, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (head(torch.tanh(base(x) + adapter(x))) - 1).square().mean())  # noqa: B023
            run.fault(not adapter.up.weight.any() and not adapter.down.weight.any() and silent(adapter))
            optimizer.step()


@fault(
    Verdict("zero", "zero-weight", module="body", where=("last",)),
)
def last_layer_zero_and_not_trained(run: Run) -> None:
    """The weight of the last layer is zero by design and was frozen with the rest of a checkpoint; its bias learns."""
    body, last = convolutions(), filled(nn.Linear(6, 2), weight=0.0)
    last.weight.requires_grad_(False)
    optimizer = torch.optim.Adam([*body.parameters(), last.bias], lr=1e-3)
    with run.track(optimizer, {"body": body, "last": last}):
        for _ in run.steps(25):
            images = torch.randn(4, 1, 6, 6)
            trained(optimizer, lambda: (last(body(images)) - 1).square().mean())  # noqa: B023
            run.fault(not last.weight.any() and silent(body) and norm(last) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "zero-weight", module="branch", where=("(root)", "gain", "MulBackward0")),
    Verdict("zero", "not-in-optimizer", module="(outside every module)", severity="warning"),
)
def residual_gain_of_zero_under_weight_decay_only(run: Run) -> None:
    """A residual branch behind a gain of zero that no optimizer moves."""
    stem, branch, head = nn.Linear(6, 6), mlp(6, 8, 6, nn.GELU), nn.Linear(6, 2)
    gain = nn.Parameter(torch.zeros(6), requires_grad=True)
    optimizer = torch.optim.SGD([*stem.parameters(), *branch.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"stem": stem, "branch": branch, "head": head}):
        for _ in run.steps(25):
            x = stem(torch.randn(8, 6))
            trained(optimizer, lambda: (head(x + gain * branch(x)) - 1).square().mean())  # noqa: B023
            run.fault(not gain.any() and silent(branch) and norm(stem) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "zero-input", module="goal", where=("goal",)),
)
def goal_that_the_environment_never_sets(run: Run) -> None:
    """The policy's second input is always 0, and its first layer there has no bias."""
    state, goal, out = nn.Linear(4, 8), nn.Linear(3, 8, bias=False), nn.Linear(8, 2)
    modules = {"state": state, "goal": goal, "out": out}
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            seen, wanted = torch.randn(8, 4), torch.zeros(8, 3)
            trained(optimizer, lambda: (out(torch.tanh(state(seen) + goal(wanted))) - 1).square().mean())  # noqa: B023
            run.fault(not wanted.any() and silent(goal) and norm(state) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "zero-input", module="audio", where=("audio.0", "audio")),
)
def silent_microphone(run: Run) -> None:
    """Two inputs: the second one's files could not be read from step 11 on, and the loader gives zeros."""
    video = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 4))
    audio = nn.Sequential(nn.Conv1d(1, 2, 3, bias=False), nn.Flatten())
    head = nn.Linear(16, 2)
    modules = {"video": video, "audio": audio, "head": head}
    optimizer = torch.optim.SGD([p for m in modules.values() for p in m.parameters()], lr=0.01)
    with run.track(optimizer, modules):
        for step in run.steps(30):
            images, sound = torch.randn(4, 1, 6, 6), torch.randn(4, 1, 8) * (step <= 10)
            joint = torch.cat([video(images), audio(sound)], 1)
            trained(optimizer, lambda: (head(joint) - 1).square().mean())  # noqa: B023
            run.fault(not sound.any() and silent(audio) and norm(video) > 0)
            optimizer.step()
