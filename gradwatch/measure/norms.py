"""What is measured: exact L2 norms, accumulated in float64.

A sum of squares in float32 drifts by thousands of ulps on a large tensor and overflows from 2e19 on. In
float64 the square of every float32 is exact and in range, so that the error of a norm stays below 1e-12 of
its value: far under half a float32 ulp, 6e-8. float64 gradients can leave the range of their own squares and
are then scaled by their largest magnitude first.

Two ways lead to the same number. ``global_norm`` and ``exact_norms`` are plain torch on any device and never
read a value on the host. ``HostPlan`` is for gradients in the memory of the CPU, where a call costs more than
the arithmetic of a small tensor: it gathers the small ones into one buffer and writes nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["HostPlan", "Scratch", "exact_norms", "global_norm", "write_norms"]

FloatArray = npt.NDArray[np.float64]

# Below this, squares of float64 values lose digits to underflow; above the other, they overflow.
_SMALLEST_SAFE_SQUARE = 1e-280
_LARGEST_SAFE_SQUARE = 1e300


def global_norm(of: Tensor | nn.Module | Iterable[Tensor]) -> Tensor:
    """The exact L2 norm of tensors taken as one vector, with no host read.

    Args:
        of: tensors, or one tensor; for a parameter its gradient is meant, for a module the gradients of its
            parameters. A parameter given twice counts once, one without a gradient not at all.

    Returns:
        A 0-dim float64 tensor on the device of the first tensor; 0.0 where there is nothing to measure.
    """
    with torch.no_grad():
        norms = exact_norms(_tensors_of(of))
        if not norms:
            return torch.zeros((), dtype=torch.float64)
        device = norms[0].device
        return _scaled_norm(torch.stack([norm.to(device, non_blocking=True) for norm in norms]))


def exact_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The exact L2 norm of each tensor, a 0-dim float64 tensor on its device; with no host read.

    On an accelerator the fused kernel of ``torch._foreach_norm`` accumulates in float64 itself.
    """
    plain = [_real_and_dense(tensor) for tensor in tensors]
    norms: list[Tensor | None] = [None] * len(plain)
    fused: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(plain):
        if tensor.dtype == torch.float64 or tensor.device.type == "cpu":
            norms[place] = _scaled_norm(tensor)
        else:
            fused.setdefault(tensor.device, []).append(place)
    for places in fused.values():
        of_device = torch._foreach_norm([plain[place] for place in places], 2, dtype=torch.float64)
        for place, norm in zip(places, of_device, strict=True):
            norms[place] = norm
    return cast("list[Tensor]", norms)


def write_norms(out: Tensor, places: Tensor, tensors: Sequence[Tensor]) -> None:
    """Write the exact norm of each tensor to its place in a float64 vector on their device; with no host read."""
    out.index_copy_(0, places, torch.stack(exact_norms(tensors)))


def _tensors_of(of: Tensor | nn.Module | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(of, nn.Module):
        given: Iterable[Tensor] = of.parameters()
    else:
        given = [of] if isinstance(of, Tensor) else of
    seen: dict[int, Tensor] = {}
    plain: list[Tensor] = []
    for tensor in given:
        if not isinstance(tensor, nn.Parameter):
            plain.append(tensor)
        elif tensor.grad is not None:
            seen[id(tensor)] = tensor.grad
    return [*seen.values(), *plain]


def _real_and_dense(tensor: Tensor) -> Tensor:
    """A real, strided tensor of the same L2 norm."""
    tensor = tensor.detach()
    if tensor.is_sparse:
        # Duplicate indices of an uncoalesced tensor add up: the values alone are not its norm.
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor


def _scaled_norm(tensor: Tensor) -> Tensor:
    """The float64 L2 norm of a real tensor, scaled by its largest magnitude where float64 needs that.

    NaN and Inf come out as themselves: the scale is 1 there. No value is read, hence ``where`` and no ``if``.
    """
    if tensor.numel() == 0:
        return torch.zeros((), dtype=torch.float64, device=tensor.device)
    if tensor.dtype != torch.float64:
        norm: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
        return norm
    largest = torch.linalg.vector_norm(tensor, ord=float("inf"))
    # A power of two, so that scaling is exact; in two halves, since 2^-e itself overflows for a subnormal.
    half = torch.exp2(torch.floor(torch.log2(largest) / 2))
    half = torch.where((half > 0) & torch.isfinite(half), half, torch.ones_like(half))
    scaled: Tensor = torch.linalg.vector_norm(tensor / half / half)
    return scaled * half * half


class Scratch:
    """Reused float64 memory of 4 MiB in which host gradients are squared.

    It fits in the cache of a core or beside it, so that widening a tensor chunk by chunk costs one read of
    the gradient and no write to main memory.
    """

    SIZE = 1 << 19

    def __init__(self) -> None:
        self.wide = torch.empty(self.SIZE, dtype=torch.float64, device="cpu")
        # The same CPU memory seen by numpy: a view made once, no read.
        self.array = cast("FloatArray", self.wide.numpy())


class HostPlan:
    """Norms of one fixed list of dense gradients in CPU memory: planned once, run at each step.

    Args:
        shapes: a tensor with the shape and dtype of each gradient, that is, its parameter.
        scratch: where to square; shared between plans that never run at once.
    """

    # Up to here a tensor is cheaper to gather than to reduce by calls of its own (measured: tests/bench).
    GATHERED = 1 << 14

    def __init__(self, shapes: Sequence[Tensor], scratch: Scratch) -> None:
        # What the plan was made for; a gradient of another shape could be broadcast into the scratch unseen.
        self._forms = [(shape.shape, shape.dtype) for shape in shapes]
        self._sums = np.zeros(len(shapes))
        self._wide = np.array([shape.dtype in (torch.float64, torch.complex128) for shape in shapes], dtype=bool)
        self._any_wide = bool(self._wide.any())
        small = [i for i, shape in enumerate(shapes) if 0 < shape.numel() <= self.GATHERED]
        self._gathers = [_Gather(batch, shapes, scratch) for batch in _batches(small, shapes)]
        self._large = [
            (i, _Chunks(shape.numel(), scratch)) for i, shape in enumerate(shapes) if shape.numel() > self.GATHERED
        ]

    def norms(self, gradients: Sequence[Tensor]) -> FloatArray:
        """The exact L2 norm of each gradient, in the order of the plan; a new array of float64.

        Raises:
            RuntimeError: a gradient is not dense or not of its parameter's shape.
        """
        if [(gradient.shape, gradient.dtype) for gradient in gradients] != self._forms:
            raise RuntimeError("the gradients are not of the form that was planned for")
        sums = self._sums
        for gather in self._gathers:
            gather.add_squares(gradients, sums)
        for place, chunks in self._large:
            sums[place] = chunks.square_sum(gradients[place])
        norms = np.sqrt(sums)
        if self._any_wide:
            self._redo_out_of_range(gradients, sums, norms)
        return norms

    def _redo_out_of_range(self, gradients: Sequence[Tensor], sums: FloatArray, norms: FloatArray) -> None:
        in_range = (sums > _SMALLEST_SAFE_SQUARE) & (sums < _LARGEST_SAFE_SQUARE)
        for place in map(int, np.flatnonzero(self._wide & ~in_range)):
            # In CPU memory there is no device to wait for: the read is a load.
            norms[place] = float(_scaled_norm(_real_and_dense(gradients[place])))


def _batches(small: Sequence[int], shapes: Sequence[Tensor]) -> list[list[int]]:
    """Split indices into runs whose elements fit into the scratch together."""
    batches: list[list[int]] = []
    room = 0
    for index in small:
        size = shapes[index].numel()
        if size > room:
            batches.append([])
            room = Scratch.SIZE
        batches[-1].append(index)
        room -= size
    return batches


class _Gather:
    """Small tensors, copied side by side into the scratch and reduced by one call."""

    def __init__(self, places: list[int], shapes: Sequence[Tensor], scratch: Scratch) -> None:
        self._places = places
        sizes = [shapes[place].numel() for place in places]
        self._starts = np.cumsum([0, *sizes[:-1]])
        total = sum(sizes)
        pieces = torch.split(scratch.wide[:total], sizes)
        self._views = [piece.view(shapes[place].shape) for place, piece in zip(places, pieces, strict=True)]
        self._used = scratch.array[:total]

    def add_squares(self, gradients: Sequence[Tensor], sums: FloatArray) -> None:
        torch._foreach_copy_(self._views, [gradients[place] for place in self._places])
        # Inf * Inf and the overflow of float64 squares are values here, not errors.
        with np.errstate(all="ignore"):
            np.multiply(self._used, self._used, out=self._used)
            sums[self._places] = np.add.reduceat(self._used, self._starts)


class _Chunks:
    """A large tensor, widened to float64 chunk by chunk in the scratch; a dot product each."""

    def __init__(self, size: int, scratch: Scratch) -> None:
        full, rest = divmod(size, Scratch.SIZE)
        self._views = [scratch.wide] * full + ([scratch.wide[:rest]] if rest else [])
        partial = torch.zeros(len(self._views), dtype=torch.float64, device="cpu")
        self._cells = list(partial.unbind())
        # The same CPU memory seen by numpy: a view made once, no read.
        self._partial = cast("FloatArray", partial.numpy())

    def square_sum(self, gradient: Tensor) -> float:
        chunks = torch.split(_in_memory_order(gradient), Scratch.SIZE)
        for chunk, view, cell in zip(chunks, self._views, self._cells, strict=True):
            view.copy_(chunk)
            torch.dot(view, view, out=cell)
        return float(self._partial.sum())


def _in_memory_order(tensor: Tensor) -> Tensor:
    """The elements as one dimension, in the order of memory: no copy where the tensor is dense."""
    if not tensor.is_contiguous():
        order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
        tensor = tensor.permute(order)
    return tensor.reshape(-1)
