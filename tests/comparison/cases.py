"""Steps whose gradient is known by heart, to hold against it what a tool says of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

STEPS = 2


@dataclass(frozen=True)
class Case:
    """A step of a net with two layers, ``first`` and ``last``, each with a gradient that is one constant.

    Attributes:
        name: what is tried.
        first: the gradient of each element of ``first``.
        last: the same of ``last``; None: the loss does not reach it.
        elements: of each layer.
        limit: of clipping by the norm.
        passes: backward passes that the gradient is the sum of.
        scale: of a GradScaler; None: there is none.
    """

    name: str
    first: float = 3.0
    last: float | None = 4.0
    elements: int = 1
    limit: float = 1.0
    passes: int = 1
    scale: float | None = None


CASES = [
    Case("clipped to 1"),
    Case("two passes of half each", passes=2),
    Case("under a loss scale of 1024", scale=1024.0),
    Case("`last` has no gradient", last=None),
    Case("2^20 equal elements", first=0.003, last=0.004, elements=2**20),
    Case("norm of 5e20", first=3e20, last=4e20),
]


class Known(nn.Module):
    """The loss of a batch of ones is such that the gradients are those of the case."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.first = nn.Linear(case.elements, 1, bias=False)
        self.last = nn.Linear(case.elements, 1, bias=False)

    def forward(self, ones: Tensor) -> Tensor:
        loss = self.first.weight.sum() * self.case.first
        if self.case.last is not None:
            loss = loss + self.last.weight.sum() * self.case.last
        return loss * ones.mean()
