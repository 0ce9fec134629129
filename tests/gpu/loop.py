"""What a training loop is here: something whose step can be looked into before and after its clip call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

Look = Callable[[str, Optimizer], None]


def nothing(name: str, optimizer: Optimizer) -> None:
    """What a loop is looked at with where nobody looks."""


@dataclass
class Loop:
    """One training loop, with all its data on the device.

    Attributes:
        optimizers: by name, as ``gradwatch.track`` takes them.
        modules: by name, as ``gradwatch.track`` takes them.
        step: one iteration; ``look(name, optimizer)`` is called when the gradients of an optimizer are complete
            and unscaled, and again when they are clipped.
    """

    optimizers: Mapping[str, Optimizer]
    modules: Mapping[str, nn.Module]
    step: Callable[[Look], None]


def held(optimizer: Optimizer) -> list[nn.Parameter]:
    """The parameters of an optimizer."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def clip_and_step(name: str, optimizer: Optimizer, limit: float, look: Look) -> None:
    """What most loops do with complete gradients."""
    look(name, optimizer)
    torch.nn.utils.clip_grad_norm_(held(optimizer), limit)
    look(name, optimizer)
    optimizer.step()
