"""What is measured: exact L2 norms, accumulated in float64, in plain torch on any device.

A sum of squares in float32 drifts by thousands of ulps on a large tensor and overflows from 2e19 on. In
float64 the square of every float32 is exact and in range, so that the error of a norm stays below 1e-12 of
its value: far under half a float32 ulp, 6e-8. float64 gradients can leave the range of their own squares and
are measured at three scales, of which the one that fits is taken.

Nothing here reads a value on the host, and no shape depends on one: a device is never waited for. Gradients in the
memory of the CPU have ways of their own that cost less: ``gradwatch.measure.kernel``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import cast

import torch
from torch import Tensor, nn

__all__ = [
    "PIECE",
    "REDUCED_AS_THEY_ARE",
    "exact_norms",
    "global_norm",
    "in_memory_order",
    "on_host",
    "real_and_dense",
    "write_norms",
]

# Norms of float64 at three scales, as in Blue's algorithm (ACM TOMS 4, 1978). Where a norm is below the limit,
# squares may have lost digits to underflow; where it is infinite, they may have overflowed. Neither happens once
# such values are scaled by a power of two.
_SMALLEST = 1e-140
_UP, _DOWN = 2.0**600, 2.0**-600

# In CPU memory torch widens a tensor as a whole before it reduces it: a larger one is handed over in pieces.
PIECE = 1 << 18

REDUCED_AS_THEY_ARE = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_kind = attrgetter("device", "dtype", "layout")


def global_norm(of: Tensor | nn.Module | Iterable[Tensor | None]) -> Tensor:
    """The exact L2 norm of tensors taken as one vector, with no host read.

    Args:
        of: tensors, or one tensor; for a parameter its gradient is meant, for a module the gradients of its
            parameters. A parameter given twice counts once, one without a gradient not at all, and neither
            does None.

    Returns:
        A 0-dim float64 tensor on the device of the first tensor that is on an accelerator, on the CPU where
        none is; 0.0 where there is nothing to measure.
    """
    with torch.no_grad():
        norms = exact_norms(_tensors_of(of))
        if not norms:
            return torch.zeros((), dtype=torch.float64)
        # Towards an accelerator a copy waits for nothing; towards the CPU it would have to.
        device = next((norm.device for norm in norms if norm.device.type != "cpu"), norms[0].device)
        return _combined(torch.stack([norm.to(device, non_blocking=True) for norm in norms]))


def exact_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The exact L2 norm of each tensor, a 0-dim float64 tensor on its device; with no host read.

    Tensors of one device and dtype are reduced together by ``torch._foreach_norm``, whose fused kernel on an
    accelerator accumulates in float64 itself: a few launches, however many tensors.
    """
    with torch.no_grad():
        if _are_alike(tensors):
            return _reduced(list(tensors))
        plain = [real_and_dense(tensor) for tensor in tensors]
        norms: list[Tensor | None] = [None] * len(plain)
        for places in _groups(plain):
            for place, norm in zip(places, _reduced([plain[place] for place in places]), strict=True):
                norms[place] = norm
    return cast("list[Tensor]", norms)


def write_norms(out: Tensor, places: Tensor, tensors: Sequence[Tensor]) -> None:
    """Write the exact norm of each tensor to its place in a vector on their device; with no host read.

    Args:
        out: float64, ``[slots]``.
        places: int64, one index into ``out`` for each tensor.
        tensors: on the device of both.
    """
    if tensors:
        with torch.no_grad():
            out.index_copy_(0, places, torch.stack(exact_norms(tensors)))


def on_host(tensor: Tensor) -> bool:
    """Whether the values lie in the memory of the CPU, where reading is a load and nothing is waited for.

    Not so for a subclass of Tensor: a fake tensor says that it is on the CPU and has no values at all.
    """
    return tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter)


def _tensors_of(of: Tensor | nn.Module | Iterable[Tensor | None]) -> list[Tensor]:
    if isinstance(of, nn.Module):
        given: Iterable[Tensor | None] = of.parameters()
    else:
        given = [of] if isinstance(of, Tensor) else of
    gradients: dict[int, Tensor | None] = {}
    plain: list[Tensor] = []
    for tensor in given:
        if isinstance(tensor, nn.Parameter):
            gradients[id(tensor)] = tensor.grad
        elif tensor is not None:
            plain.append(tensor)
    return [*(gradient for gradient in gradients.values() if gradient is not None), *plain]


def real_and_dense(tensor: Tensor) -> Tensor:
    """A real, strided tensor of the same L2 norm, in a dtype that torch can reduce."""
    if tensor.layout != torch.strided:
        tensor = _values(tensor)
    if tensor.is_complex():
        # The conjugate has the same norm, and undoing it costs nothing.
        tensor = torch.view_as_real(tensor.conj() if tensor.is_conj() else tensor)
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()
    return tensor


def _values(tensor: Tensor) -> Tensor:
    """The values of a tensor that is not strided, each index once."""
    if tensor.layout == torch.sparse_coo:
        # Duplicate indices of an uncoalesced tensor add up: the values alone are not its norm.
        if tensor.is_coalesced() or not on_host(tensor):
            return _summed_by_index(tensor)
        return tensor.coalesce().values()
    return tensor.values()


def _summed_by_index(tensor: Tensor) -> Tensor:
    """What ``coalesce`` would leave as values, and rows of zeros: it would read how many indices differ."""
    indices, values = tensor._indices(), tensor._values()
    if tensor.is_coalesced():
        return values
    sizes = tensor.shape[: len(indices)]
    place = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    for index, size in zip(indices, sizes, strict=True):
        place = place * size + index
    place, order = torch.sort(place)
    begins = torch.nn.functional.pad((place[1:] != place[:-1]).to(torch.int64), (1, 0))
    wide = values.index_select(0, order).to(torch.complex128 if values.is_complex() else torch.float64)
    sums = torch.zeros_like(wide).index_add_(0, torch.cumsum(begins, 0), wide)
    # Rounded once, as the optimizer will see the sum.
    return sums.to(values.dtype)


def in_memory_order(tensor: Tensor) -> Tensor:
    """The elements as one dimension, in the order of memory: no copy where the tensor is dense."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).reshape(-1)


def _are_alike(tensors: Sequence[Tensor]) -> bool:
    """Whether a fused kernel takes all of them as they are: the usual case, asked without a line for each."""
    kinds = set(map(_kind, tensors))
    if len(kinds) != 1:
        return False
    ((_, dtype, layout),) = kinds
    return dtype in REDUCED_AS_THEY_ARE and layout == torch.strided and all(map(Tensor.is_contiguous, tensors))


def _groups(tensors: Sequence[Tensor]) -> Iterable[list[int]]:
    """The indices of tensors that a fused kernel takes together; one odd tensor would stop it for all."""
    groups: dict[tuple[torch.device, torch.dtype, bool], list[int]] = {}
    for place, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype, _is_dense(tensor)), []).append(place)
    return groups.values()


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, each once, in any order of dimensions."""
    if tensor.is_contiguous():
        return True
    filled = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != filled:
            return False
        filled *= size
    return True


def _reduced(tensors: list[Tensor]) -> list[Tensor]:
    """The norms of real tensors of one device and dtype."""
    if tensors[0].device.type == "cpu" and any(tensor.numel() > PIECE for tensor in tensors):
        return [_by_pieces(tensor) for tensor in tensors]
    return list(_fused(tensors))


def _by_pieces(tensor: Tensor) -> Tensor:
    if tensor.numel() <= PIECE:
        return _fused([tensor])[0]
    pieces = torch.split(in_memory_order(tensor), PIECE)
    return _combined(torch.stack(list(_fused(list(pieces)))))


def _fused(tensors: list[Tensor]) -> Sequence[Tensor]:
    if tensors[0].dtype != torch.float64:
        return torch._foreach_norm(tensors, 2, dtype=torch.float64)
    as_it_is = torch.stack(torch._foreach_norm(tensors, 2))
    # One copy at a time.
    down, up = (torch.stack(torch._foreach_norm(torch._foreach_mul(tensors, by), 2)) for by in (_DOWN, _UP))
    return _in_range(as_it_is, down, up).unbind()


def _combined(norms: Tensor) -> Tensor:
    """The norm of a float64 vector."""
    as_it_is, down, up = (torch.linalg.vector_norm(norms * scale) for scale in (1.0, _DOWN, _UP))
    return _in_range(as_it_is, down, up)


def _in_range(as_it_is: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Of norms at three scales the one whose squares were in range; NaN and Inf stay what they are.

    No value is read, hence ``where`` and no ``if``.
    """
    small = torch.where(as_it_is < _SMALLEST, up * _DOWN, as_it_is)
    return torch.where(torch.isinf(as_it_is), down * _UP, small)
