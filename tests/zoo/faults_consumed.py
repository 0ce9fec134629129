"""NaN that the optimizer consumes, as in any plain loop: a step later the weights are NaN and nothing else is to be seen.

Each loop proves by hand that its weights were finite when the fault came, and which value it was that broke.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.faults_nonfinite import bad
from tests.zoo.nets import convolutions, mlp, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run

# The step in which each of them breaks.
BREAKS = 8


def finite(of: nn.Module) -> bool:
    """Every weight is finite, looked at one by one."""
    return all(math.isfinite(value) for p in of.parameters() for value in p.detach().flatten().tolist())


def broken_once(
    run: Run, net: nn.Module, loss: Callable[[int], Tensor], proof: Callable[[], bool], **numbers: float
) -> None:
    """A loop with no guard of any kind, whose loss breaks at one step.

    Args:
        run: the run.
        net: what is trained.
        loss: of one step, by its number.
        proof: whether the fault is in what that step computed.
        numbers: measured by hand, as in ``Run.fault``.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for step in run.steps(BREAKS + 12):
            sound = finite(net)
            trained(optimizer, lambda: loss(step))  # noqa: B023
            run.fault(step == BREAKS and sound and bad(net) and proof(), **numbers)
            optimizer.step()
    assert not finite(net)


@fault(Verdict("nonfinite", "nonfinite-op", where=("LogBackward0",), evidence=("input_min",)), also=("zero",))
def likelihood_of_an_impossible_class(run: Run) -> None:
    """The probability of the true class is exactly 0 once: its logarithm is -Inf."""
    net = mlp(6, 8, 3)
    seen: list[Tensor] = []

    def loss(step: int) -> Tensor:
        probability = torch.softmax(net(torch.randn(8, 6)), -1) * torch.tensor([float(step != BREAKS), 1.0, 1.0])
        seen[:] = [probability.detach()[:, 0]]
        return -torch.log(probability[:, 0]).mean()

    broken_once(run, net, loss, lambda: not seen[0].any(), input_min=0.0)


@fault(Verdict("nonfinite", "nonfinite-op", where=("SqrtBackward0",)), also=("zero",))
def distance_of_a_pair_of_twins(run: Run) -> None:
    """A Siamese net is given the same sample twice: the loss is a finite 0, and the slope of sqrt is infinite there."""
    net = convolutions(outputs=4)
    seen: list[float] = []

    def loss(step: int) -> Tensor:
        one = torch.randn(4, 1, 6, 6)
        other = one if step == BREAKS else torch.randn(4, 1, 6, 6)
        distance = ((net(one) - net(other)) ** 2).sum(1)
        seen[:] = distance.tolist()
        return distance.sqrt().mean()

    broken_once(run, net, loss, lambda: seen == [0.0] * 4)


@fault(
    Verdict("nonfinite", "nonfinite-op", where=("DivBackward0",), evidence=("input_nearest_0",)), also=("zero",)
)
def mean_over_an_empty_sequence(run: Run) -> None:
    """One sequence of the batch has length 0: the mean of its states is 0/0."""
    parts = nn.ModuleDict({"words": nn.Embedding(10, 6), "lstm": nn.LSTM(6, 6, batch_first=True)})
    lengths: list[int] = []

    def loss(step: int) -> Tensor:
        lengths[:] = [4, 0 if step == BREAKS else 2, 3]
        there = (torch.arange(4) < torch.tensor(lengths)[:, None]).float()[..., None]
        states, _ = parts["lstm"](parts["words"](torch.randint(10, (3, 4))))
        return ((states * there).sum(1) / there.sum(1) - 1).square().mean()

    broken_once(run, parts, loss, lambda: 0 in lengths, input_nearest_0=0.0)


class Attention(nn.Module):
    """Attention written out, with a mask that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 8**0.5 + mask
        return self.out(torch.softmax(scores, -1) @ self.value(x))  # type: ignore[no-any-return]


@fault(Verdict("nonfinite", "nonfinite-op", where=("attention",)), also=("zero",))
def row_of_attention_that_sees_nothing(run: Run) -> None:
    """One row of the mask is -Inf throughout: every score was finite, and the softmax of that row is NaN."""
    attention, parts = Attention(), nn.ModuleDict()
    parts["attention"] = attention
    seen: list[Tensor] = []

    def loss(step: int) -> Tensor:
        mask = torch.zeros(2, 5, 5)
        mask[1, 3] = -math.inf if step == BREAKS else 0.0
        seen[:] = [mask[1, 3]]
        return (attention(torch.randn(2, 5, 8), mask) - 1).square().mean()

    broken_once(run, parts, loss, lambda: seen[0].tolist() == [-math.inf] * 5)


@fault(Verdict("nonfinite", "nonfinite-op", where=("ExpBackward0",)), also=("zero",))
def softmax_by_hand_that_overflows(run: Run) -> None:
    """exp(z) / sum exp(z), without taking the maximum off first."""
    net = convolutions(outputs=3)
    seen: list[float] = []

    def loss(step: int) -> Tensor:
        scores = net(torch.randn(4, 1, 6, 6)).abs() * (3e3 if step == BREAKS else 1.0)
        seen[:] = [float(scores.detach().max())]
        return -(scores.exp() / scores.exp().sum(1, keepdim=True))[:, 0].mean()

    broken_once(run, net, loss, lambda: 89.0 < seen[0] < math.inf)


@fault(Verdict("nonfinite", "nonfinite-op", where=("AcosBackward0",)), also=("zero",))
def angle_of_a_vector_with_itself(run: Run) -> None:
    """acos of a cosine that is clamped to 1: the loss is a finite 0, the slope infinite."""
    parts = nn.ModuleDict({"body": nn.Linear(4, 3)})
    seen: list[Tensor] = []

    def loss(step: int) -> Tensor:
        one = functional.normalize(parts["body"](torch.randn(6, 4)), dim=1)
        other = one.detach() if step == BREAKS else functional.normalize(torch.randn(6, 3), dim=1)
        cosine = (one * other).sum(1).clamp(-1, 1)
        seen[:] = [cosine.detach()]
        return torch.acos(cosine).mean()

    broken_once(run, parts, loss, lambda: bool((seen[0] == 1).any()))


@fault(Verdict("nonfinite", "nonfinite-loss", where=("loss",)), also=("zero",))
def target_that_is_no_number(run: Run) -> None:
    """A squared error by hand, against a label that is NaN: no operation is to blame."""
    net = mlp()
    seen: list[Tensor] = []

    def loss(step: int) -> Tensor:
        labels = torch.ones(8, 2)
        labels[3, 1] = math.nan if step == BREAKS else 1.0
        seen[:] = [labels]
        return ((net(torch.randn(8, 6)) - labels) ** 2).mean()

    broken_once(run, net, loss, lambda: math.isnan(float(seen[0][3, 1])))


@fault(Verdict("nonfinite", "nonfinite-loss", where=("loss",)), also=("zero",))
def table_of_positions_with_a_hole(run: Run) -> None:
    """A buffer that is added to the embeddings holds Inf at one place, in front of an attention layer."""
    parts = nn.ModuleDict(
        {"words": nn.Embedding(10, 8), "attention": nn.MultiheadAttention(8, 2, batch_first=True)}
    )
    table = torch.zeros(5, 8)

    def loss(step: int) -> Tensor:
        if step == BREAKS:
            table[2, 3] = math.inf
        x = parts["words"](torch.randint(10, (3, 5))) + table
        return (parts["attention"](x, x, x, need_weights=False)[0] - 1).square().mean()

    broken_once(run, parts, loss, lambda: math.isinf(float(table[2, 3])))


@fault(Verdict("nonfinite", "nonfinite-op", where=("SqrtBackward0",)), also=("zero",))
def penalty_on_a_slope_of_nothing(run: Run) -> None:
    """WGAN-GP: the critic's ReLUs are off for every sample once, and the norm of its slope is sqrt(0)."""
    critic = mlp(4, 64, 1, nn.ReLU)
    seen: list[Tensor] = []

    def loss(step: int) -> Tensor:
        if step == BREAKS:
            with torch.no_grad():
                critic[0].bias.fill_(-50.0)
        x = torch.randn(6, 4, requires_grad=True)
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        seen[:] = [slope.detach()]
        return critic(x.detach()).mean() + 10 * (slope.square().sum(1).sqrt() - 1).square().mean()

    broken_once(run, critic, loss, lambda: not seen[0].any())


@fault(Verdict("nonfinite", "nonfinite-op", where=("SqrtBackward0",)), also=("zero",))
def one_of_four_micro_batches(run: Run) -> None:
    """Gradients are summed over four passes; the third of them measures the length of a vector of zeros."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for step in run.steps(20):
            sound, lengths = finite(net), []
            optimizer.zero_grad()
            for number in range(4):
                out = net(torch.randn(4, 6)) * float(step != BREAKS or number != 2)
                length = out.square().sum().sqrt()
                length.backward()
                lengths.append(length.item())
            run.fault(sound and bad(net) and lengths[2] == 0.0 and all(map(math.isfinite, lengths)))
            optimizer.step()


@fault(Verdict("nonfinite", "unknown", where=("optimizer",)), also=("zero",))
def gradient_normalised_by_hand(run: Run) -> None:
    """The loop divides a gradient by 0 after the backward pass: the square root in its loss is innocent."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for step in run.steps(20):
            trained(optimizer, lambda: (net(torch.randn(4, 6)) - 1).square().sum().sqrt())
            sound = not bad(net)
            if step == BREAKS:
                net[0].weight.grad.sub_(net[0].weight.grad.clone()).div_(0.0)  # type: ignore[operator,union-attr]
            run.fault(step == BREAKS and sound and bad(net))
            optimizer.step()


@fault(
    Verdict("nonfinite", "clip-overflow"), Verdict("clip-overflow", "clip-overflow"), also=("explosion", "zero")
)
def measured_by_a_clip_call_without_a_limit(run: Run) -> None:
    """``clip_grad_norm_(p, inf)`` as a way to measure turns finite gradients of 1e25 into NaN."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-30)
    with run.track(optimizer, net):
        for step in run.steps(20):
            trained(optimizer, lambda: net(torch.randn(4, 6)).sum() * (1e25 if step == BREAKS else 1.0))  # noqa: B023
            sound = not bad(net)
            torch.nn.utils.clip_grad_norm_(net.parameters(), math.inf)
            run.fault(step == BREAKS and sound and bad(net))
            optimizer.step()
