"""Gradients in the memory of the CPU, treated as if a device had them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor

from gradwatch.measure import devices, kernel

__all__ = ["treat_as_elsewhere"]


def treat_as_elsewhere(
    monkeypatch: pytest.MonkeyPatch, is_on_host: Callable[[Tensor], bool] = lambda _: False
) -> None:
    """Have every number that is not on the host go by way of a board and its ring."""
    on_host = kernel.norms

    def norms(
        gradients: list[Tensor | None], places: bytes, out: bytearray
    ) -> tuple[float, int, list[int] | None]:
        wanted = np.frombuffer(places, dtype=np.int64).tolist()
        there = [place for place in wanted if not (gradients[place] is None or is_on_host(gradients[place]))]
        here = np.array([place for place in wanted if place not in there], dtype=np.int64)
        total, zeros, left = on_host(gradients, here.tobytes(), out)
        assert left is None
        return total, zeros, there or None

    monkeypatch.setattr(kernel, "norms", norms)
    monkeypatch.setattr(kernel, "on_host", is_on_host)
    monkeypatch.setattr(devices, "on_host", is_on_host)
