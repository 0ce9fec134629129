"""Narrow types, custom Functions and operations at their edge, each with its repaired twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from tests.zoo.faults_nonfinite import GoingBack, bad
from tests.zoo.nets import mlp, norm, optimized, silent
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


@fault_and_repair(Verdict("zero", "underflow", module="body"))
def half_precision_without_a_loss_scale(run: Run, fixed: bool) -> None:
    """The loss is a mean over very much, and its gradient is too small for float16 where features are cast."""
    body, head = mlp(6, 16, 8), nn.Linear(8, 1)
    scale = 2.0**20 if fixed else 1.0

    def loss() -> Tensor:
        x = torch.randn(32, 6)
        features = torch.tanh(body(x)).half().float()
        return scale * functional.mse_loss(head(features), x[:, :1]) * 1e-8

    parts: dict[str, nn.Module] = {"body": body, "head": head}
    optimized(run, parts, loss, lambda: silent(body) and norm(head) > 0)


class Stepped:
    """Steps with a chance to be without its outliers: a loop that goes back to its last good weights."""

    def __init__(self, run: Run, net: nn.Module) -> None:
        self.run, self.net = run, net
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        self.going_back = GoingBack(net, self.optimizer)

    def on(self, loss: Any) -> None:
        """Thirty steps, of which each ninth has what breaks it."""
        with self.run.track(self.optimizer, {"net": self.net}):
            for step in self.run.steps(30):
                self.optimizer.zero_grad()
                loss(step % 9 == 8).backward()
                self.run.fault(bad(self.net))
                self.going_back.step()


@fault_and_repair(
    Verdict("nonfinite", "nonfinite-op", remedy=("float32|bfloat16|scale|smaller|range",)), also=("zero",)
)
def scores_too_large_for_half(run: Run, fixed: bool) -> None:
    """A cast to float16 makes infinity of what is above 65504; the softmax makes NaN of two of them."""
    net = nn.Linear(6, 4)

    def loss(outlier: bool) -> Tensor:
        x = torch.randn(8, 6)
        x[0] *= 1e6 if outlier else 1.0
        scores = (net(x).clamp(-1e4, 1e4) if fixed else net(x)).half().float()
        return functional.cross_entropy(scores, torch.randint(4, (8,)))

    Stepped(run, net).on(loss)


class Unit(Function):
    """x / |x|, by hand; its gradient divides by the length as well, and there is none at 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        length = x.norm(dim=1, keepdim=True)
        unit = x / length
        return (gradient - unit * (unit * gradient).sum(1, keepdim=True)) / length


@fault_and_repair(Verdict("nonfinite", "nonfinite-op", where=("UnitBackward", "net")), also=("zero",))
def function_of_ones_own_that_divides_by_nothing(run: Run, fixed: bool) -> None:
    net = nn.Linear(6, 4, bias=False)
    unit = (lambda x: functional.normalize(x, dim=1, eps=1e-6)) if fixed else Unit.apply

    def loss(outlier: bool) -> Tensor:
        x = torch.randn(8, 6)
        if outlier:
            x[0] = 0.0
        return functional.mse_loss(unit(net(x)), x[:, :4])

    Stepped(run, net).on(loss)


class Reversed(Function):
    """The layer of an adversary of domains: its gradient is turned round, and weighed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


@fault_and_repair(Verdict("zero", "unknown|zero-factor", module="adapt", where=("ReversedBackward", "adapt")))
def reversed_gradient_whose_weight_never_rises(run: Run, fixed: bool) -> None:
    """``step // total`` again: what the adversary teaches is multiplied by 0 on the way back."""
    adapt, domain = mlp(6, 16, 8), mlp(8, 16, 2)
    weight = 0.3 if fixed else float(30 // 100)

    def loss() -> Tensor:
        labels = torch.randint(2, (16,))
        x = torch.randn(16, 6) + labels[:, None]
        return functional.cross_entropy(domain(Reversed.apply(adapt(x), weight)), labels)

    parts: dict[str, nn.Module] = {"adapt": adapt, "domain": domain}
    optimized(run, parts, loss, lambda: silent(adapt) and norm(domain) > 0)


class Surrogate(Function):
    """A spike whose surrogate gradient is a box around the threshold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.width = width
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < ctx.width), None


@fault_and_repair(Verdict("zero", "unknown|masked", module="encoder", where=("SurrogateBackward", "encoder")))
def surrogate_too_narrow_for_its_potentials(run: Run, fixed: bool) -> None:
    encoder, decoder = mlp(6, 16, 8), nn.Linear(8, 6)
    nn.init.constant_(encoder[2].bias, 4.0)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        return functional.mse_loss(decoder(Surrogate.apply(encoder(x), 8.0 if fixed else 0.5)), x)

    parts: dict[str, nn.Module] = {"encoder": encoder, "decoder": decoder}
    optimized(run, parts, loss, lambda: silent(encoder) and norm(decoder) > 0)


@fault_and_repair(
    Verdict(
        "nonfinite", "nonfinite-op", where=("SqrtBackward0",), remedy=("epsilon|eps", "inside|under|in the root")
    ),
    also=("zero",),
)
def root_of_a_mean_square_that_is_nothing(run: Run, fixed: bool) -> None:
    """An RMS loss: where one sample is met exactly, its root is taken at 0. The epsilon belongs inside of it."""
    net = nn.Linear(6, 4, bias=False)

    def loss(outlier: bool) -> Tensor:
        x = torch.randn(8, 6)
        if outlier:
            x[0] = 0.0
        square = (net(x) - x[:, :4]).square().mean(1)
        return ((square + 1e-12).sqrt() if fixed else square.sqrt() + 1e-12).mean()

    Stepped(run, net).on(loss)


@fault_and_repair(
    Verdict("nonfinite", "nonfinite-op", where=("LogBackward0",), remedy=("log|clamp|epsilon",)), also=("zero",)
)
def focal_loss_of_a_class_that_is_sure(run: Run, fixed: bool) -> None:
    """``log(softmax)`` in place of ``log_softmax``: a probability of 0 has no logarithm."""
    net = nn.Linear(6, 4)

    def loss(outlier: bool) -> Tensor:
        logits, labels = net(torch.randn(8, 6)), torch.randint(4, (8, 1))
        logits = logits - (200.0 if outlier else 0.0) * functional.one_hot(labels[:, 0], 4)
        log_p = logits.log_softmax(1) if fixed else logits.softmax(1).log()
        chosen = log_p.gather(1, labels)
        return -((1 - chosen.exp()) ** 2 * chosen).mean()

    Stepped(run, net).on(loss)


@fault_and_repair(
    Verdict("nonfinite", "nonfinite-weights", remedy=("weight|update|rate|optimizer",)), also=("zero", "nonfinite")
)
def weights_normalised_by_a_length_of_nothing(run: Run, fixed: bool) -> None:
    """After each step the rows are divided by their lengths; one row was pruned to 0."""
    net = nn.Linear(6, 4, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    with run.track(optimizer, {"net": net}):
        for step in run.steps(25):
            x = torch.randn(16, 6)
            optimizer.zero_grad()
            functional.mse_loss(net(x), x[:, :4]).backward()
            run.fault(bool(net.weight.isnan().any()))
            optimizer.step()
            with torch.no_grad():
                if step == 10:
                    net.weight[1] = 0.0
                net.weight.div_(net.weight.norm(dim=1, keepdim=True).clamp(min=1e-6 if fixed else 0.0))


@fault_and_repair(
    Verdict("nonfinite", "nonfinite-weights", remedy=("rate|update|optimizer",)), also=("zero", "nonfinite")
)
def rate_divided_by_the_steps_that_are_left(run: Run, fixed: bool) -> None:
    """A schedule of 1 / (total - step): at the last step of it the rate is infinite."""
    net = mlp(6, 16, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    with run.track(optimizer, {"net": net}):
        for step in run.steps(25):
            left = torch.tensor(12.0 - step)
            optimizer.param_groups[0]["lr"] = 1e-3 if fixed else float(0.01 / left.abs())
            x = torch.randn(16, 6)
            optimizer.zero_grad()
            functional.mse_loss(net(x), x[:, :2]).backward()
            run.fault(not bool(torch.isfinite(net[0].weight).all()))
            optimizer.step()
