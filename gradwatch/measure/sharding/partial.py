"""Partial gradients, of which each rank has one summand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.measure.sharding.parts import on_this_rank

__all__ = ["PartialSums"]


class PartialSums:
    """Adds up partial gradients between the ranks, side by side in one buffer for each mesh and kind."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    def whole(self, gradients: Sequence[Any]) -> list[Tensor]:
        """The sum of each, as one dimension; the memory is used again by the next call."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, gradient in enumerate(gradients):
            kind = (gradient.device_mesh, gradient.placements, gradient.dtype, gradient.device)
            groups.setdefault(kind, []).append(place)
        whole: dict[int, Tensor] = {}
        for kind, places in groups.items():
            parts = [on_this_rank(gradients[place]).reshape(-1) for place in places]
            sizes = [part.numel() for part in parts]
            summed = torch.split(self._summed(kind, parts, sum(sizes)), sizes)
            whole.update(zip(places, summed, strict=True))
        return [whole[place] for place in range(len(gradients))]

    def _summed(self, kind: tuple[Any, ...], parts: Sequence[Tensor], size: int) -> Tensor:
        mesh, placements, dtype, device = kind
        buffer = self._buffers.get(kind)
        if buffer is None or len(buffer) != size:
            buffer = self._buffers[kind] = torch.empty(size, dtype=dtype, device=device)
        torch.cat(list(parts), out=buffer)
        for dim, placement in enumerate(placements):
            if placement.is_partial():
                torch.distributed.all_reduce(buffer, group=mesh.get_group(dim))
        return buffer
