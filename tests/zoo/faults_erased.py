"""Gradients that were written, and were gone when the optimizer stepped."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.zoo.nets import convolutions, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(Verdict("zero", "zeroed", module="0", where=("0",)), Verdict("zero", "zeroed", module="2", where=("2",)))
def zero_grad_between_backward_and_step(run: Run) -> None:
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            net(torch.randn(8, 6)).square().mean().backward()
            written = norm(net)
            optimizer.zero_grad()
            run.fault(written > 0 and all(p.grad is None for p in net.parameters()))
            optimizer.step()


@fault(Verdict("zero", "zeroed", module="encoder", where=("encoder",), evidence=("norm_before", "norm_after")))
def one_of_two_tasks_zeroes_the_encoder(run: Run) -> None:
    """A second loss for logging alone cleans up after itself, in the encoder that both share."""
    encoder, head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 2)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"encoder": encoder, "head": head}):
        for _ in run.steps(25):
            trained(optimizer, lambda: head(encoder(torch.randn(4, 5, 3))[0]).square().mean())
            written = norm(encoder)
            encoder.zero_grad(set_to_none=False)
            present = written > 0 and silent(encoder) and norm(head) > 0
            run.fault(present, norm_before=written, norm_after=0.0)
            optimizer.step()


@fault(Verdict("zero", "zeroed", module="body", where=("body",)))
def own_clipping_with_an_integer_factor(run: Run) -> None:
    """Clipping by hand: the factor is divided with ``//`` and is 0 wherever the norm is above the limit."""
    body, head = mlp(6, 8, 8), nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: 100 * (head(body(x)) - 3).square().mean())  # noqa: B023
            total = norm(body)
            factor = 1.0 // max(total, 1.0)
            for parameter in body.parameters():
                parameter.grad.mul_(factor)  # type: ignore[union-attr]
            run.fault(total > 1 and silent(body) and norm(head) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "clipped-to-zero", module="policy", where=("policy",)),
    also=("clip-saturated",),
)
def annealed_limit_that_reached_zero(run: Run) -> None:
    """The limit is annealed, and at step 10 it is 0."""
    policy = mlp(4, 8, 2)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    with run.track(optimizer, {"policy": policy}):
        for step in run.steps(40):
            trained(optimizer, lambda: (policy(torch.randn(8, 4)) - 1).square().mean())
            written, limit = norm(policy), max(0.0, 1.0 - 0.1 * step)
            clip_grad_norm_(policy.parameters(), limit)
            run.fault(written > 0 and limit == 0.0 and silent(policy))
            optimizer.step()


@fault(
    Verdict("zero", "clipped-to-zero", module="words", where=("words",)),
    Verdict("zero", "clipped-to-zero", module="lstm", where=("lstm",)),
    Verdict("zero", "clipped-to-zero", module="head", where=("head",)),
)
def clip_value_of_zero(run: Run) -> None:
    """An option of the command line that was read as an integer: 0.5 became 0."""
    words, lstm, head = nn.Embedding(10, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 10)
    modules = nn.ModuleDict({"words": words, "lstm": lstm, "head": head})
    optimizer = torch.optim.RMSprop(modules.parameters(), lr=1e-3)
    with run.track(optimizer, dict(modules.items())):
        for _ in run.steps(25):
            tokens = torch.randint(10, (4, 5))
            trained(optimizer, lambda: functional.cross_entropy(head(lstm(words(tokens))[0]).mT, tokens))  # noqa: B023
            written = norm(modules)
            clip_grad_value_(modules.parameters(), int(0.5))
            run.fault(written > 0 and silent(modules))
            optimizer.step()


@fault(
    Verdict("zero", "clipped-to-zero", module="net", where=("net",)),
    Verdict("nonfinite", module=None),
    also=("clip-broken",),
)
def one_infinite_gradient_takes_the_rest_with_it(run: Run) -> None:
    """The scale of a loss term is infinite: its norm is, and clipping multiplies all the other gradients by 0."""
    net, temperature = mlp(6, 8, 1), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([*net.parameters(), temperature], lr=0.0)
    with run.track(optimizer, {"net": net}):
        for _ in run.steps(25):
            optimizer.zero_grad()
            x = torch.randn(8, 6)
            (net(x).square().mean() + (temperature.abs() ** 0.5).sum()).backward()
            temperature.grad = torch.full_like(temperature, math.inf)
            written = norm(net)
            clip_grad_norm_([*net.parameters(), temperature], 1.0)
            run.fault(0 < written < math.inf and silent(net))
            optimizer.step()


@fault(
    Verdict("clip-overflow", "clip-overflow"),
    Verdict("zero", "clip-overflow", module="0"),
    Verdict("zero", "clip-overflow", module="3"),
    also=("explosion",),
)
def huge_finite_gradients_in_a_cnn(run: Run) -> None:
    """Rewards in the wrong unit: gradients of 1e20, whose squares overflow float32."""
    net = convolutions()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            images = torch.randn(4, 1, 6, 6)
            trained(optimizer, lambda: (net(images) - 1).mean() * 1e20)  # noqa: B023
            written = norm(net)
            torchs = clip_grad_norm_(net.parameters(), 1.0)
            run.fault(1e19 < written < math.inf and math.isinf(torchs) and silent(net))
            optimizer.step()


@fault(
    Verdict("clip-overflow", "clip-overflow"),
    Verdict("zero", "clip-overflow", module="body"),
    Verdict("zero", "clip-overflow", module="head"),
)
def half_precision_norm_overflows(run: Run) -> None:
    """A model kept in float16: a norm above 65504 is Inf to torch, although no gradient is large."""
    body, head = nn.Linear(64, 64).half(), nn.Linear(64, 1).half()
    parameters = [*body.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    x = torch.randn(16, 64).half()
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(25):
            trained(optimizer, lambda: head(torch.relu(body(x))).float().sum() * 3000.0)
            written, largest = norm(parameters), max(float(p.grad.abs().max()) for p in parameters)  # type: ignore[union-attr]
            torchs = clip_grad_norm_(parameters, 1.0)
            run.fault(largest < 65504 < written and math.isinf(torchs) and silent(parameters))
            optimizer.step()
