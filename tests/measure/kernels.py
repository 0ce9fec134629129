"""The kernels that can run here, for tests that are the same for each."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest
from torch import Tensor

from gradwatch.measure import kernel, pure

KERNELS: list[ModuleType] = [pure, *([kernel._native] if kernel._native else [])]

# The ways to sum: those of native code on this processor, and torch.
WAYS: list[str] = ["torch", *(kernel._native.WAYS if kernel._native else ())]

native = pytest.mark.skipif(kernel._native is None, reason="the native kernel was not built")


def norms_by(way: str, gradients: Sequence[Tensor]) -> list[float]:
    """The norms of gradients in CPU memory by one of the ways; what native code leaves is measured by torch."""
    places = np.arange(len(gradients)).tobytes()
    out = bytearray(8 * len(gradients))
    if way == "torch":
        left = pure.norms(list(gradients), places, out)[2]
    else:
        kernel._native.use(way)
        try:
            left = kernel.norms(list(gradients), places, out)[2]
        finally:
            kernel._native.use(kernel._native.WAYS[0])
    assert left is None
    norms: list[float] = np.frombuffer(out).tolist()
    return norms
