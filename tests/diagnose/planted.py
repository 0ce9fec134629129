"""What a planted fault is, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

Modules = nn.Module | dict[str, nn.Module]


class Loop(NamedTuple):
    """One iteration of a training loop: the modules, what runs forward and backward, proof that the fault is there."""

    modules: Modules
    step: Callable[[], object]
    present: Callable[[], bool]


@dataclass(frozen=True)
class Fault:
    """A fault, and the verdict that it must get.

    Attributes:
        build: makes the loop anew; the random state is set before.
        kind: the cause's kind.
        at: module path or parameter name that is ill.
        where: where the cause is said to be; None where that is not what the fault is about.
        evidence: numbers that must be in the evidence.
        remedy: how a remedy begins that fits better than that of the kind; None for that one.
    """

    build: Callable[[], Loop]
    kind: str
    at: str
    where: str | None
    evidence: dict[str, object]
    remedy: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.build.__name__}"


FAULTS: list[Fault] = []


def fault(
    kind: str, at: str, where: str | None = None, remedy: str | None = None, **evidence: object
) -> Callable[[Callable[[], Loop]], Callable[[], Loop]]:
    def note(build: Callable[[], Loop]) -> Callable[[], Loop]:
        FAULTS.append(Fault(build, kind, at, where, evidence, remedy))
        return build

    return note


def filled(layer: nn.Module, weight: float | None = None, bias: float | None = None) -> nn.Module:
    """The layer with constant weights or biases."""
    for value, parameter in ((weight, layer.weight), (bias, layer.bias)):
        if value is not None and parameter is not None:
            nn.init.constant_(parameter, value)
    return layer


def parameters_at(modules: Modules, at: str) -> dict[str, Tensor]:
    """The parameters at a path, found by torch's own names rather than by gradwatch's."""
    holder = modules if isinstance(modules, nn.Module) else nn.ModuleDict(modules)
    found = {n: p for n, p in holder.named_parameters() if n == at or n.startswith(at + ".")}
    assert found, f"no parameter at {at}"
    return found


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape)
