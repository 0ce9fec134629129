"""NaN and Inf: in the loss, in the forward pass, in the backward pass alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import batch, filled
from tests.zoo.still import Loop, still


def not_finite(value: Tensor) -> bool:
    return not bool(torch.isfinite(value).all())


@still("nonfinite-loss", at="net", where="loss")
def times_nan() -> Loop:
    net, x, weight = nn.Linear(4, 1), batch(3, 4), torch.tensor(math.nan)
    return Loop({"net": net}, lambda: (net(x).mean() * weight).backward(), lambda: not_finite(weight))


@still("nonfinite-loss", at="net")
def nan_in_the_data() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), batch(3, 4)
    x[1, 2] = math.nan
    return Loop({"net": net}, lambda: net(x).square().mean().backward(), lambda: not_finite(x))


@still("nonfinite-loss", at="net")
def nan_in_the_targets() -> Loop:
    net, x, wanted = nn.Linear(4, 1), batch(3, 4), batch(3, 1)
    wanted[0] = math.nan
    return Loop({"net": net}, lambda: functional.mse_loss(net(x), wanted).backward(), lambda: not_finite(wanted))


@still("nonfinite-weights", at="net", where="net.0.weight", parameters=1, dtype="float32")
def nan_in_a_weight() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), batch(3, 4)
    with torch.no_grad():
        net[0].weight[0, 0] = math.nan
    return Loop({"net": net}, lambda: net(x).square().mean().backward(), lambda: not_finite(net[0].weight))


@still("nonfinite-loss", at="0")
def nan_that_an_inner_gradient_began_with() -> Loop:
    """A gradient penalty of NaN: the slope of each ReLU passes on what came to it, and saved a finite number."""
    net, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)), batch(3, 4)
    x.requires_grad_()

    def step() -> None:
        out = net(x)
        (slope,) = torch.autograd.grad(out.sum() * math.nan, x, create_graph=True)
        (out.mean() + slope.square().mean()).backward()

    return Loop(net, step, lambda: True)


@still("nonfinite-loss", at="0")
def nan_added_behind_a_norm() -> Loop:
    """A sum does not save what it adds; and what a norm makes is bounded."""
    net, x, noise = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1)), batch(3, 4), batch(3, 8)
    noise[1, 2] = math.nan
    step = lambda: net[2](net[1](net[0](x)) + noise).square().mean().backward()  # noqa: E731
    return Loop(net, step, lambda: not_finite(noise))


@still("nonfinite-op", at="net", operation="DivBackward0", direction="forward", input_nearest_0=0.0)
def mean_over_a_mask_of_nothing() -> Loop:
    """What is divided by is a count, a whole number."""
    net, x, mask = nn.Linear(4, 1), batch(3, 4), torch.zeros(3, 1, dtype=torch.bool)
    step = lambda: ((net(x).square() * mask).sum() / mask.sum()).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not mask.any())


class Through(nn.Module):
    def __init__(self, function: object, bias: float | None = None) -> None:
        super().__init__()
        self.first, self.last, self.function = filled(nn.Linear(4, 4), bias=bias), nn.Linear(4, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


@still("nonfinite-op", at="first", where="(root)", operation="LogBackward0", direction="forward")
def log_of_negative() -> Loop:
    net, x = Through(torch.log, bias=-9.0), batch(3, 4)
    return Loop(net, lambda: net(x).square().sum().backward(), lambda: not_finite(torch.log(net.first(x))))


@still("nonfinite-op", at="first", where="(root)", operation="ExpBackward0", direction="forward")
def exp_overflows() -> Loop:
    net, x = Through(torch.exp, bias=200.0), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not_finite(torch.exp(net.first(x))))


@still("nonfinite-op", at="first", where="(root)", operation="DivBackward0", direction="forward")
def division_by_zero() -> Loop:
    net, x = Through(lambda h: h / torch.zeros(4)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: True)


@still("nonfinite-op", at="net", where="LogBackward0", direction="forward")
def log_of_zero_probability() -> Loop:
    net, x = filled(nn.Linear(4, 3), bias=0.0), batch(5, 4)
    with torch.no_grad():
        net.bias[0] = -500.0
    step = lambda: (-(net(x).softmax(-1).log()[:, 0]).mean()).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool((net(x).softmax(-1)[:, 0] == 0).all()))


@still("nonfinite-op", at="0", where="0", direction="forward")
def layer_overflows_in_half() -> Loop:
    net = nn.Sequential(filled(nn.Linear(64, 4), weight=100.0), nn.Linear(4, 1)).half()
    x = torch.full((2, 64), 300.0).half()
    return Loop(
        net,
        lambda: net(x).square().sum().backward(),
        lambda: not_finite(net[0](x)) and bool(torch.isfinite(x).all()),
    )


@still("nonfinite-op", at="net", where="PowBackward0", direction="forward")
def square_overflows() -> Loop:
    net, x = nn.Linear(4, 1), batch(3, 4) * 1e25
    return Loop({"net": net}, lambda: ((net(x) - 1) ** 2).mean().backward(), lambda: not_finite(net(x) ** 2))


@still("nonfinite-op", at="net", where="MseLossBackward0", direction="forward", dtype="float32")
def squares_overflow_beside_another_loss() -> Loop:
    """What the first loss was is seen nowhere: it is added to another."""
    net, x = nn.Linear(4, 1), batch(3, 4) * 1e25
    loss = lambda: functional.mse_loss(net(x), torch.zeros(3, 1))  # noqa: E731
    step = lambda: (loss() + 0.1 * net.weight.square().sum()).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not_finite(loss()) and not not_finite(net(x)))


@still("nonfinite-op", at="net", where="MseLossBackward0", direction="forward", dtype="float32")
def mean_of_squares_overflows_in_its_sum() -> Loop:
    return _squares_that_overflow_together("mean")


@still("nonfinite-op", at="net", where="MseLossBackward0", direction="forward", dtype="float32")
def sum_of_squares_overflows() -> Loop:
    return _squares_that_overflow_together("sum")


def _squares_that_overflow_together(reduction: str) -> Loop:
    """Each is 1e38; of twelve the sum has no place in float32."""
    net, x = filled(nn.Linear(4, 1), weight=2.5e-12, bias=0.0), torch.full((12, 4), 1e30)
    loss = lambda: functional.mse_loss(net(x), torch.zeros(12, 1), reduction=reduction)  # noqa: E731
    step = lambda: (loss() + 0.1 * net.weight.square().sum()).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not_finite(loss()) and not not_finite(net(x).square()))


@still("nonfinite-op", at="net", where="MseLossBackward0", direction="forward", dtype="float32")
def squares_overflow_one_by_one() -> Loop:
    net, x, weight = nn.Linear(4, 1), batch(3, 4) * 1e25, torch.rand(3, 1) + 0.5
    squares = lambda: functional.mse_loss(net(x), torch.zeros(3, 1), reduction="none")  # noqa: E731
    return Loop({"net": net}, lambda: (squares() * weight).mean().backward(), lambda: not_finite(squares()))


@still(
    "nonfinite-op",
    at="0",
    where="0.parametrizations.weight.0",
    operation="WeightNormInterfaceBackward0",
    direction="forward",
)
def weight_norm_without_a_direction() -> Loop:
    net, x = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), nn.Linear(2, 1)), batch(3, 4)
    with torch.no_grad():
        net[0].parametrizations.weight.original1[0] = 0.0
    return Loop(net, lambda: net(x).square().mean().backward(), lambda: not_finite(net[0].weight))


@still("nonfinite-op", at="0", where="1", operation="NativeLayerNormBackward0", direction="forward")
def norm_without_an_epsilon() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8, eps=0.0), nn.Linear(8, 1)), batch(3, 4)
    filled(net[0], weight=0.0, bias=1.0)
    return Loop(net, lambda: net(x).square().mean().backward(), lambda: not_finite(net(x)))


@still("nonfinite-op", at="net", where="SqrtBackward0", operation="SqrtBackward0", direction="backward")
def sqrt_at_zero() -> Loop:
    net, x = nn.Linear(4, 1), torch.zeros(3, 4)
    filled(net, bias=0.0)
    step = lambda: (net(x) ** 2).sqrt().sum().backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not net(x).any())


@still("nonfinite-op", at="first", where="(root)", operation="SqrtBackward0", direction="backward")
def sqrt_in_a_module() -> Loop:
    net, x = Through(lambda h: (h - h.detach()).abs().sqrt()), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not (net.first(x) - net.first(x)).any())


@still("nonfinite-op", at="first", where="(root)", operation="LogBackward0", direction="backward")
def where_does_not_save_from_log() -> Loop:
    net, x = Through(lambda h: torch.where(h > 0, torch.log(h * (h > 0)), 0.0)), batch(3, 4)
    return Loop(
        net, lambda: net(x).sum().backward(), lambda: bool((net.first(x) <= 0).any()) and not not_finite(net(x))
    )


@still("nonfinite-op", at="net", direction="backward")
def division_underneath() -> Loop:
    net, x = filled(nn.Linear(4, 2), weight=0.0, bias=0.0), batch(3, 4)
    step = lambda: (1 / (1 + 1 / net(x).abs())).sum().backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not net(x).any())


@still("nonfinite-op", at="net", direction="backward")
def acos_at_one() -> Loop:
    net, x = filled(nn.Linear(4, 2), weight=0.0, bias=1.0), batch(3, 4)
    return Loop({"net": net}, lambda: torch.acos(net(x)).sum().backward(), lambda: bool((net(x) == 1).all()))


@still("nonfinite-op", at="0", direction="backward")
def gradient_overflows_in_half() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)
    step = lambda: (net[1](net[0](x).half().float()).sum() * 1e7).backward()  # noqa: E731
    return Loop(net, step, lambda: not_finite(torch.tensor(1e7).half()))


@still("nonfinite-op", at="net", direction="backward")
def power_below_one_at_zero() -> Loop:
    net, x = filled(nn.Linear(4, 2), weight=0.0, bias=0.0), batch(3, 4)
    return Loop({"net": net}, lambda: (net(x) ** 0.5).sum().backward(), lambda: not net(x).any())


@still("nonfinite-op", at="net", where="net", direction="forward")
def attention_to_nothing() -> Loop:
    """-Inf is what a mask is made of: it is the softmax over nothing else that is at fault."""
    net, x, mask = nn.MultiheadAttention(8, 2, batch_first=True), batch(3, 4, 8), torch.zeros(3, 4)
    mask[0] = -math.inf
    step = lambda: net(x, x, x, key_padding_mask=mask)[0].square().mean().backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not_finite(mask) and not not_finite(x))


@still("nonfinite-op", at="a", operation="ToCopyBackward0", direction="forward")
def cast_overflows() -> Loop:
    """Finite numbers become Inf where they are cast to a type that ends before them."""
    a, b, x = nn.Linear(4, 8), nn.Linear(8, 2), batch(3, 4)
    step = lambda: b((a(x) * 1e6).half().float()).square().sum().backward()  # noqa: E731
    return Loop({"a": a, "b": b}, step, lambda: not_finite((a(x) * 1e6).half()) and not not_finite(a(x) * 1e6))


@still("nonfinite-op", at="net", operation="PowBackward0", direction="backward")
def nan_in_the_targets_behind_a_where() -> Loop:
    net, x, wanted = nn.Linear(4, 2), batch(3, 4), batch(3, 2)
    wanted[0, 0] = math.nan
    loss = lambda: torch.where(wanted.isnan(), 0.0, (net(x) - wanted).pow(2)).sum()  # noqa: E731
    return Loop({"net": net}, lambda: loss().backward(), lambda: not_finite(wanted) and not not_finite(loss()))
