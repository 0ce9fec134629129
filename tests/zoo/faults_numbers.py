"""Numbers that their type cannot hold: too small, infinite, or none at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import convolutions, filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


def bad(of: nn.Module) -> bool:
    """Some gradient holds NaN or Inf, looked at one by one."""
    values = (v for p in of.parameters() if p.grad is not None for v in p.grad.flatten().tolist())
    return not all(map(math.isfinite, values))


@fault(
    Verdict("zero", "underflow", module="body"),
)
def half_precision_without_a_scaler(run: Run) -> None:
    """float16 autocast, a small loss and no GradScaler: what flows back is below 6e-8."""
    body, head = mlp(6, 8, 8), nn.Linear(8, 1)
    offset = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters(), offset], lr=1e-4)
    with run.track(optimizer, {"body": body}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)

            def loss() -> Tensor:
                with torch.autocast("cpu", dtype=torch.float16):
                    out = head(body(x))  # noqa: B023
                return 1e-8 * out.float().mean() + (offset - 1).square().sum()

            trained(optimizer, loss)
            slope = 1e-8 / 8  # of the loss towards each output, in float32
            run.fault(0 < slope < 2.0**-25 and float(torch.tensor(slope).half()) == 0 and silent(body))
            optimizer.step()


@fault(
    Verdict("zero", "underflow", module="first"),
)
def chain_of_sigmoids(run: Run) -> None:
    """Forty sigmoid layers of width 4: each takes a factor of 0.05 or so, and float32 ends at 1e-45."""
    first = nn.Linear(4, 4)
    deep = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Sigmoid(), nn.Linear(4, 4))))
    with torch.no_grad():
        for layer in deep:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(0.3)
    optimizer = torch.optim.SGD([*first.parameters(), *deep.parameters()], lr=0.01)
    exact = nn.Sequential(
        nn.Linear(4, 4),
        nn.Sequential(*(type(m)() if isinstance(m, nn.Sigmoid) else nn.Linear(4, 4) for m in deep)),
    ).double()
    with run.track(optimizer, {"first": first, "deep": deep}):
        for _ in run.steps(15):
            x = torch.randn(4, 4)
            trained(optimizer, lambda: deep(first(x)).square().mean())  # noqa: B023
            exact[0].load_state_dict(first.state_dict())
            exact[1].load_state_dict(deep.state_dict())
            exact.zero_grad()
            exact[1](exact[0](x.double())).square().mean().backward()
            run.fault(0 < norm(exact[0]) < 1e-45 and silent(first) and norm(deep) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "underflow", module="words"),
)
def loss_divided_twice_by_too_much(run: Run) -> None:
    """The loss is divided by the tokens of the whole data set, per token, and again in float16."""
    words, head = nn.Embedding(12, 6), nn.Linear(6, 12).half()
    bias = nn.Parameter(torch.zeros(12))
    optimizer = torch.optim.SGD([*words.parameters(), *head.parameters(), bias], lr=0.01)
    with run.track(optimizer, {"words": words}):
        for _ in run.steps(25):
            tokens = torch.randint(12, (16,))
            logits = head(words(tokens).half()).float()
            per_token = functional.cross_entropy(logits, tokens, reduction="none") / 1e9
            trained(optimizer, lambda: per_token.mean() + functional.cross_entropy(bias.expand(16, 12), tokens))  # noqa: B023
            largest = 1.0 / 1e9 / 16  # of the slopes of the loss towards a logit
            run.fault(float(torch.tensor(largest).half()) == 0 and silent(words) and norm([bias]) > 0)
            optimizer.step()


@fault(Verdict("nonfinite", "nonfinite-loss"), also=("zero",))
def pixels_that_are_not_numbers(run: Run) -> None:
    """From step 11 on, one pixel of one image is NaN, as a broken file gives it."""
    net = convolutions(outputs=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with run.track(optimizer, net):
        for step in run.steps(25):
            images = torch.randn(4, 1, 6, 6)
            if step > 10:
                images[1, 0, 2, 2] = math.nan
            loss = trained(optimizer, lambda: (net(images) - 1).square().mean())  # noqa: B023
            weights = all(bool(torch.isfinite(p).all()) for p in net.parameters())
            run.fault(weights and not math.isfinite(loss.item()) and bad(net))
            optimizer.step()


@fault(Verdict("nonfinite", "nonfinite-loss"))
def infinite_reward(run: Run) -> None:
    """A time to collision of infinity, from step 6 on, as the target of the Q-function."""
    q = mlp(6, 8, 1, nn.ReLU)
    critic = torch.optim.Adam(q.parameters(), lr=0.0)
    with run.track({"optimizer": critic}, {"q": q}):
        for step in run.steps(25):
            x, value = torch.randn(8, 6), torch.randn(8, 1)
            if step > 5:
                value[3] = math.inf
            trained(critic, lambda: functional.mse_loss(q(x), value))  # noqa: B023
            run.fault(math.isinf(float(value.max())) and bool(torch.isfinite(x).all()) and bad(q))
            critic.step()


@fault(Verdict("nonfinite", "nonfinite-op", where=("LogBackward0",)))
def logarithm_of_zero(run: Run) -> None:
    """Own cross-entropy: the logarithm of a probability that is exactly 0 in float32."""
    net = mlp(6, 8, 3)
    filled(net[2], bias=0.0)
    with torch.no_grad():
        net[2].bias[0] = 200.0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with run.track(optimizer, net):
        for _ in run.steps(20):
            x, labels = torch.randn(8, 6), torch.randint(1, 3, (8,))
            probability = torch.softmax(net(x), -1).gather(1, labels[:, None])
            trained(optimizer, lambda: -probability.log().mean())  # noqa: B023
            run.fault(0.0 in probability.flatten().tolist() and bad(net))
            optimizer.step()


class Distance(nn.Module):
    """The Euclidean distance, with a square root that has no slope at 0."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).square().sum(1).sqrt()


@fault(Verdict("nonfinite", "nonfinite-op", where=("distance", "SqrtBackward0")))
def square_root_at_zero(run: Run) -> None:
    """Two equal samples: the loss is finite, and its gradient is 0 times infinity."""
    net, distance = mlp(6, 8, 4), Distance()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    with run.track(optimizer, nn.ModuleDict({"net": net, "distance": distance})):
        for step in run.steps(25):
            one, other = torch.randn(8, 6), torch.randn(8, 6)
            if step > 8:
                other[2] = one[2]
            loss = trained(optimizer, lambda: distance(net(one), net(other)).mean())  # noqa: B023
            run.fault(torch.equal(one[2], other[2]) and math.isfinite(loss.item()) and bad(net))
            optimizer.step()


@fault(Verdict("nonfinite", "nonfinite-op", where=("DivBackward0",)))
def advantages_divided_by_no_deviation(run: Run) -> None:
    """All advantages are equal, so that their deviation is 0: policy gradient by hand, without an epsilon."""
    body, value = mlp(4, 8, 8), nn.Linear(8, 1)
    with torch.no_grad():
        value.weight.zero_()
        value.bias.fill_(0.5)
    optimizer = torch.optim.SGD([*body.parameters(), *value.parameters()], lr=0.0)
    with run.track(optimizer, {"body": body, "value": value}):
        for _ in run.steps(20):
            out = value(body(torch.randn(8, 4)))[:, 0]
            centred = out - out.mean()
            spread = (out - out.mean()).abs().max()
            trained(optimizer, lambda: (centred / spread - 1).square().mean())  # noqa: B023
            run.fault(spread.item() == 0 and (bad(body) or bad(value)))
            optimizer.step()


@fault(Verdict("nonfinite", severity="critical"))
def scaler_that_skips_for_ever(run: Run) -> None:
    """Own exponential in float16 autocast overflows whatever the loss scale is: each step is skipped."""
    net = mlp(6, 8, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = (net(torch.randn(8, 6)) + 40.0).exp().mean()
            scaler.scale(loss).backward()
            run.fault(bad(net))
            before = net[0].weight.detach().clone()
            scaler.step(optimizer)
            scaler.update()
            assert torch.equal(before, net[0].weight)
    run.keep(scaler=scaler)
