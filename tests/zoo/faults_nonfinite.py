"""Numbers that are none: they come in with the data, or an operation makes them of finite ones.

A step that consumes NaN leaves NaN in the weights, and from then on nothing else is to be seen. Where an operation is
to be found, the loop therefore keeps its weights, as loops do that have seen this before: by a GradScaler, by
cleaning the gradients, or by going back to the last good weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import convolutions, filled, mlp, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


def bad(of: nn.Module) -> bool:
    """Some gradient holds NaN or Inf, looked at one by one."""
    values = (v for p in of.parameters() if p.grad is not None for v in p.grad.flatten().tolist())
    return not all(map(math.isfinite, values))


class GoingBack:
    """Steps, and restores the last good weights where the step has left others than finite ones."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._net, self._optimizer = net, optimizer

    def step(self) -> None:
        good = copy.deepcopy(self._net.state_dict()), copy.deepcopy(self._optimizer.state_dict())
        self._optimizer.step()
        if not all(bool(torch.isfinite(p).all()) for p in self._net.parameters()):
            self._net.load_state_dict(good[0])
            self._optimizer.load_state_dict(good[1])


def scaled(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Tensor:
    """``zero_grad``, and ``backward`` of the scaled loss under bfloat16 autocast."""
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss()
    scaler.scale(value).backward()
    return value


@fault(Verdict("nonfinite", "nonfinite-loss", where=("loss",)))
def pixels_that_are_not_numbers(run: Run) -> None:
    """From step 6 on, one pixel of one image is NaN, as a broken file gives it; a GradScaler skips the steps."""
    net = convolutions(outputs=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with run.track(optimizer, net):
        for step in run.steps(25):
            images = torch.randn(4, 1, 6, 6)
            if step > 5:
                images[1, 0, 2, 2] = math.nan
            loss = scaled(scaler, optimizer, lambda: (net(images) - 1).float().square().mean())  # noqa: B023
            weights = all(bool(torch.isfinite(p).all()) for p in net.parameters())
            run.fault(weights and not math.isfinite(loss.item()) and bad(net))
            scaler.step(optimizer)
            scaler.update()
    run.keep(scaler=scaler)


@fault(Verdict("nonfinite", "nonfinite-loss", optimizer="critic", where=("loss",)))
def infinite_reward(run: Run) -> None:
    """A time to collision of infinity, from step 6 on, as the target of the Q-function."""
    q = mlp(6, 8, 1, nn.ReLU)
    critic = torch.optim.Adam(q.parameters(), lr=1e-3)
    careful = GoingBack(q, critic)
    with run.track({"critic": critic}, {"q": q}):
        for step in run.steps(25):
            x, value = torch.randn(8, 6), torch.randn(8, 1)
            if step > 5:
                value[3] = math.inf
            trained(critic, lambda: functional.mse_loss(q(x), value))  # noqa: B023
            weights = all(bool(torch.isfinite(p).all()) for p in q.parameters())
            run.fault(weights and math.isinf(float(value.max())) and bad(q))
            careful.step()


@fault(Verdict("nonfinite", "nonfinite-loss", where=("loss",)), also=("zero",))
def weights_poisoned_by_one_bad_batch(run: Run) -> None:
    """One batch is bad, at step 8, and the optimizer consumes what comes of it: the weights are NaN from then on."""
    words, head = nn.Embedding(10, 4), nn.Linear(4, 10)
    parts = nn.ModuleDict({"words": words, "head": head})
    optimizer = torch.optim.Adam(parts.parameters(), lr=1e-3)
    with run.track(optimizer, dict(parts.items())):
        for step in run.steps(25):
            tokens = torch.randint(10, (8,))
            weight = math.inf if step == 8 else 1.0
            trained(optimizer, lambda: weight * functional.cross_entropy(head(words(tokens)), tokens))  # noqa: B023
            run.fault(bad(parts))
            optimizer.step()
            assert step < 8 or not math.isfinite(float(head.weight.detach().sum()))


@fault(Verdict("nonfinite", "nonfinite-op", where=("LogBackward0",)))
def logarithm_of_zero(run: Run) -> None:
    """Own cross-entropy: the logarithm of a probability that is exactly 0 in float32; a GradScaler skips the steps."""
    net = mlp(6, 8, 3)
    filled(net[2], bias=0.0)
    with torch.no_grad():
        net[2].bias[0] = 200.0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    seen: list[Tensor] = []
    with run.track(optimizer, net):
        for _ in run.steps(20):
            x, labels = torch.randn(8, 6), torch.randint(1, 3, (8,))

            def loss() -> Tensor:
                probability = torch.softmax(net(x).float(), -1).gather(1, labels[:, None])  # noqa: B023
                seen[:] = [probability.detach()]
                return -probability.log().mean()

            scaled(scaler, optimizer, loss)
            run.fault(0.0 in seen[0].flatten().tolist() and bad(net))
            scaler.step(optimizer)
            scaler.update()
    run.keep(scaler=scaler)


class Distance(nn.Module):
    """The Euclidean distance, with a square root that has no slope at 0."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).square().sum(1).sqrt()


@fault(Verdict("nonfinite", "nonfinite-op", where=("distance",)), also=("zero",))
def square_root_at_zero(run: Run) -> None:
    """Two equal samples: the loss is finite, and its gradient is 0 times infinity. The loop cleans its gradients."""
    net, distance = mlp(6, 8, 4), Distance()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, nn.ModuleDict({"net": net, "distance": distance})):
        for step in run.steps(25):
            one, other = torch.randn(8, 6), torch.randn(8, 6)
            if step > 8:
                other[2] = one[2]
            loss = trained(optimizer, lambda: distance(net(one), net(other)).mean())  # noqa: B023
            run.fault(torch.equal(one[2], other[2]) and math.isfinite(loss.item()) and bad(net))
            for parameter in net.parameters():
                torch.nan_to_num_(parameter.grad, 0.0, 0.0, 0.0)  # type: ignore[arg-type]
            optimizer.step()


@fault(Verdict("nonfinite", "nonfinite-op", where=("DivBackward0",)))
def advantages_divided_by_no_deviation(run: Run) -> None:
    """All advantages are equal, so that their deviation is 0: policy gradient by hand, without an epsilon."""
    body, value = mlp(4, 8, 8), filled(nn.Linear(8, 1), weight=0.0, bias=0.5)
    net = nn.ModuleDict({"body": body, "value": value})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    careful = GoingBack(net, optimizer)
    with run.track(optimizer, dict(net.items())):
        for _ in run.steps(20):
            out = value(body(torch.randn(8, 4)))[:, 0]
            centred = out - out.mean()
            spread = centred.abs().max()
            trained(optimizer, lambda: (centred / spread - 1).square().mean())  # noqa: B023
            run.fault(spread.item() == 0 and bad(net))
            careful.step()


@fault(Verdict("nonfinite", "nonfinite-op", where=("ExpBackward0",)))
def scaler_that_skips_for_ever(run: Run) -> None:
    """An exponential in float16 overflows whatever the loss scale is: each step is skipped."""
    net = mlp(6, 8, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                out = net(torch.randn(8, 6)) + 40.0
                loss = out.exp().mean()
            scaler.scale(loss).backward()
            before = net[0].weight.detach().clone()
            run.fault(out.dtype == torch.float16 and float(out.detach().min()) > math.log(65504) and bad(net))
            scaler.step(optimizer)
            scaler.update()
            assert torch.equal(before, net[0].weight)
    run.keep(scaler=scaler)
