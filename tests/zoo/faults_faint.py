"""Gradients that have all but vanished: by one operation that took nearly all of them, or little by little."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.zoo.nets import filled, norm, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


def faint(
    run: Run, parts: dict[str, nn.Module], loss: Callable[[Tensor], Tensor], proof: Callable[[], bool]
) -> None:
    """A loop in which next to nothing reaches ``lower``.

    Args:
        run: the run.
        parts: what is trained, ``lower`` and ``upper`` among it.
        loss: of one batch.
        proof: whether the fault is there, found out by hand.
    """
    optimizer = torch.optim.SGD([p for part in parts.values() for p in part.parameters()], lr=1e-12)
    with run.track(optimizer, parts):
        for _ in run.steps(20):
            x = torch.randn(8, 4)
            trained(optimizer, lambda: loss(x))  # noqa: B023
            run.fault(0 < norm(parts["lower"]) < 1e-7 and norm(parts["upper"]) > 1e-3 and proof())
            optimizer.step()


@fault(Verdict("vanishing", "saturated-tanh", module="lower", where=("TanhBackward0",)))
def tanh_with_one_unit_in_the_last_place_left(run: Run) -> None:
    """The outputs are the last float32 before 1: the slope is 1.2e-7, and not 0."""
    lower, upper = filled(nn.Linear(4, 8), bias=8.9), filled(nn.Linear(8, 1))
    with torch.no_grad():
        lower.weight.mul_(0.01)  # type: ignore[operator,union-attr]
        upper.weight.mul_(0.1)  # type: ignore[operator,union-attr]
    seen: list[Tensor] = []

    def loss(x: Tensor) -> Tensor:
        after = torch.tanh(lower(x))
        seen[:] = [after.detach()]
        return (upper(after) - 1).square().mean()  # type: ignore[no-any-return]

    faint(run, {"lower": lower, "upper": upper}, loss, lambda: bool(((1 - seen[0] < 1e-6) & (seen[0] < 1)).all()))


@fault(Verdict("vanishing", "saturated-sigmoid", module="lower", where=("lower.1",)))
def gate_that_is_nearly_shut(run: Run) -> None:
    """The sigmoid of -25 is 1e-11, and so is its slope."""
    lower, upper = nn.Sequential(filled(nn.Linear(4, 8), bias=-25.0), nn.Sigmoid()), nn.Linear(8, 1)
    seen: list[float] = []

    def loss(x: Tensor) -> Tensor:
        after = lower(x)
        seen[:] = [float(after.detach().max())]
        return (upper(after) - 1).square().mean()  # type: ignore[no-any-return]

    faint(run, {"lower": lower, "upper": upper}, loss, lambda: 0 < seen[0] < 1e-9)


@fault(Verdict("vanishing", "saturated-sigmoid", module="lower", where=("SoftmaxBackward0",)))
def softmax_that_is_nearly_sure(run: Run) -> None:
    """One score is 25 above the others: what is left for them, and of the slope, is 1e-11."""
    lower, upper = nn.Linear(4, 5), nn.Linear(5, 1)
    with torch.no_grad():
        lower.bias[0] = 25.0
    seen: list[float] = []

    def loss(x: Tensor) -> Tensor:
        after = lower(x).softmax(-1)
        seen[:] = [float(after.detach()[:, 1:].max())]
        return (upper(after) - 1).square().mean()  # type: ignore[no-any-return]

    faint(run, {"lower": lower, "upper": upper}, loss, lambda: 0 < seen[0] < 1e-8)


@fault(Verdict("vanishing", "zero-weight", module="lower", where=("upper",)))
def head_that_starts_from_next_to_nothing(run: Run) -> None:
    """A standard deviation of 1e-10 in place of 1e-1."""
    lower, upper = nn.Linear(4, 8), nn.Linear(8, 1)
    nn.init.normal_(upper.weight, std=1e-10)
    weight = upper.weight.detach()
    loss = lambda x: (upper(torch.tanh(lower(x))) - 1).square().mean()  # noqa: E731
    faint(run, {"lower": lower, "upper": upper}, loss, lambda: 0 < float(weight.abs().max()) < 1e-9)


@fault(Verdict("vanishing", "zero-loss", module="lower", where=("MulBackward0",)))
def second_task_that_weighs_next_to_nothing(run: Run) -> None:
    """A loss weight of 1e-10, a typing error for 1e-1."""
    lower, upper, weight = nn.Linear(4, 1), nn.Linear(4, 1), 1e-10
    loss = lambda x: (upper(x) - 1).square().mean() + weight * (lower(x) - 1).square().mean()  # noqa: E731
    faint(run, {"lower": lower, "upper": upper}, loss, lambda: 0 < weight < 1e-9)


@fault(Verdict("vanishing", "zero-input", module="lower", where=("lower",)))
def features_in_the_wrong_unit(run: Run) -> None:
    """Metres that came in as kilometres of kilometres: the layer's input is of the order of 1e-10."""
    lower, upper = nn.Linear(4, 3, bias=False), nn.Linear(4, 3)
    seen: list[float] = []

    def loss(x: Tensor) -> Tensor:
        small = x * 1e-10
        seen[:] = [float(small.abs().max())]
        return (lower(small) + upper(x) - 1).square().mean()  # type: ignore[no-any-return]

    faint(run, {"lower": lower, "upper": upper}, loss, lambda: 0 < seen[0] < 1e-9)


@fault(
    Verdict("vanishing", "unknown", module="lower", where=("lower",)),
    Verdict("vanishing", "unknown", module="middle"),
)
def little_by_little_over_six_layers(run: Run) -> None:
    """Each of six layers takes a factor of about 100: none of them is the one to blame."""
    lower, upper = nn.Linear(4, 8), nn.Linear(8, 1)
    middle = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(6)))
    with torch.no_grad():
        for layer in middle:
            layer.weight.mul_(0.02)  # type: ignore[operator,union-attr]
    loss = lambda x: (upper(middle(lower(x))) - 1).square().mean()  # noqa: E731
    sizes = [float(layer.weight.detach().abs().max()) for layer in middle]  # type: ignore[operator,union-attr]
    proof = lambda: all(1e-3 < size < 1e-1 for size in sizes)  # noqa: E731
    faint(run, {"lower": lower, "middle": middle, "upper": upper}, loss, proof)
