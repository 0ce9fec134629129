"""What a tensor holds, as a few plain numbers: the only place here that waits for a device."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Extent",
    "arithmetic",
    "as_dense",
    "badness",
    "extent",
    "in_words",
    "largest",
    "share",
    "stored",
    "tensors_in",
]


class Extent(NamedTuple):
    """The range of a tensor's values; NaN in each where it holds a NaN.

    Attributes:
        low: smallest value.
        high: largest value.
        nearest: smallest distance from 0.
    """

    low: float
    high: float
    nearest: float

    @property
    def finite(self) -> bool:
        """Whether it holds neither NaN nor Inf."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def badness(size: float) -> tuple[bool, bool, float]:
    """Orders sizes: NaN above Inf above finite ones."""
    return (math.isnan(size), math.isinf(size), 0.0 if math.isnan(size) else size)


def in_words(size: float) -> float | str:
    """A number as evidence: what is none is told as "NaN" or "Inf", which every format can hold."""
    return size if math.isfinite(size) else "NaN" if math.isnan(size) else "Inf"


def stored(tensor: Tensor) -> Tensor:
    """The values that a tensor stores, outside any graph; of a sparse one those it holds."""
    values = tensor.detach()
    if values.layout == torch.sparse_coo:
        return values.coalesce().values()
    return values if values.layout == torch.strided else values.values()


def as_dense(tensor: Tensor) -> Tensor:
    """The same as real numbers: a complex one is two."""
    values = stored(tensor)
    return torch.view_as_real(values.resolve_conj()) if values.is_complex() else values


def largest(tensor: Tensor | None) -> float:
    """The largest absolute value: 0.0 for no tensor and for an empty one, NaN where it holds a NaN."""
    if tensor is None or tensor.numel() == 0:
        return 0.0
    values = as_dense(tensor)
    return float(_reducible(values).abs().amax()) if values.numel() else 0.0


def extent(tensor: Tensor) -> Extent:
    """The range of a tensor's values; that of an empty one is 0."""
    values = as_dense(tensor)
    if values.numel() == 0:
        return Extent(0.0, 0.0, 0.0)
    values = _reducible(values)
    low, high = torch.aminmax(values)
    # One transfer for three numbers.
    return Extent(*torch.stack([low, high, values.abs().amin()]).double().tolist())


def share(mask: Tensor) -> float:
    """The share of True in a mask, in [0, 1]; 0.0 for an empty one."""
    return float(mask.double().mean()) if mask.numel() else 0.0


def tensors_in(something: object, depth: int = 3) -> Iterator[Tensor]:
    """The floating-point tensors in arguments or outputs: alone, in sequences, mappings and dataclasses."""
    if isinstance(something, Tensor):
        if something.is_floating_point() or something.is_complex():
            yield something
    elif depth:
        for entry in _entries(something):
            yield from tensors_in(entry, depth - 1)


def _entries(something: object) -> Iterable[object]:
    if isinstance(something, (tuple, list)):
        return something
    if isinstance(something, Mapping):
        return something.values()
    return [getattr(something, name, None) for name in getattr(type(something), "__dataclass_fields__", ())]


def _reducible(values: Tensor) -> Tensor:
    # The 8-bit types have no reductions.
    return values.float() if values.element_size() == 1 else values


def arithmetic() -> contextlib.ExitStack:
    """A context in which computing makes no graph and keeps its own types."""
    stack = contextlib.ExitStack()
    stack.enter_context(torch.no_grad())
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack
