"""Norms taken beside a training loop by other means than gradwatch's, without waiting for the device."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor
from torch.optim import Optimizer

from tests.gpu.loop import held


class Noted:
    """Looks into a loop: the gradients of each step as they were, copied on the device and read later."""

    def __init__(self) -> None:
        self._seen: dict[str, list[list[Tensor]]] = defaultdict(list)

    def __call__(self, name: str, optimizer: Optimizer) -> None:
        self._seen[name].append([p.grad.clone() for p in held(optimizer) if p.grad is not None])

    def norms(self, name: str) -> list[tuple[float, float]]:
        """Before and after clipping, one pair for each step."""
        found = [host_norm(gradients) for gradients in self._seen[name]]
        return list(zip(found[0::2], found[1::2], strict=True))


def host_norm(gradients: list[Tensor]) -> float:
    """The L2 norm in float64 on the host, each square exact and summed without rounding."""
    values = torch.cat([gradient.detach().cpu().double().flatten() for gradient in gradients])
    return math.sqrt(math.fsum(values.square().tolist()))
