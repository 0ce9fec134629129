"""The parts of gradients that are on this rank, and what they weigh in sums over ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gradwatch.log import log
from gradwatch.measure.sharding.layout import (
    Cells,
    Spread,
    flattened_into,
    joined,
    spread_of_dtensor,
    spread_of_flat,
)
from gradwatch.measure.sharding.partial import PartialSums
from gradwatch.measure.sharding.parts import dtensor_type, on_this_rank

__all__ = ["Shards"]


class Shards:
    """The parts of some parameters that are on this rank.

    Args:
        parameters: those of a tracker.

    Attributes:
        ranks: the ranks, in order, over which sums have to be formed; this rank alone where nothing is spread.
        agreed: whether all of them take part, so that a gradient may be added up between them.
    """

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        parameters = list(parameters)
        self._flat = flattened_into(parameters)
        self._dtensor = dtensor_type()
        # With the parameters themselves, so that none of their ids is given to another tensor.
        self._spread: dict[int, tuple[Tensor, Spread | None]] = {}
        self._cells: dict[Any, Cells] = {}
        self.ranks = joined([spread.cells for spread in map(self.spread, parameters) if spread is not None])
        self.agreed = False
        self._is_among_ranks: dict[Any, bool] = {}
        self._sums = PartialSums()
        self._told = False

    @property
    def divided(self) -> int:
        """How many of the parameters are in parts."""
        return sum(spread is not None and spread.divided for _, spread in self._spread.values())

    @property
    def signature(self) -> str:
        """What these parameters look like as wholes: the same on every rank that holds parts of the same ones."""
        forms = [spread.form for _, spread in self._spread.values() if spread is not None]
        return hashlib.sha1("\n".join(forms).encode()).hexdigest()

    def spread(self, parameter: Tensor) -> Spread | None:
        """How a parameter lies on the ranks; None where it is an ordinary tensor of this process."""
        known = self._spread.get(id(parameter))
        if known is None:
            known = self._spread[id(parameter)] = parameter, self._look(parameter)
        return known[1]

    def forget(self, parameter: Tensor) -> None:
        """Let go of a parameter that no optimizer holds any more."""
        self._spread.pop(id(parameter), None)

    def share_of(self, parameter: Tensor) -> float | None:
        """The weight of this rank's squares in the sum over ``ranks``; None where the parameter is whole here."""
        spread = self.spread(parameter)
        if spread is None or not spread.divided:
            return None
        parts = len(spread.cells[0])
        return parts / max(len(self.ranks), parts)

    def accumulator(self, parameter: Tensor) -> Tensor | None:
        """The tensor through which a parameter gets its gradient; None where a hook on it would do harm.

        FullyShardedDataParallel with ``use_orig_params`` lets autograd see the flat parameter only. The hooks of
        parameters under ``fully_shard`` are called by itself; where it keeps them in the memory of the CPU, it
        waits for the device at each one that has a hook.
        """
        handle = self._flat.get(id(parameter))
        if handle is not None:
            return cast("Tensor", handle.flat_param)
        return None if self._is_offloaded(parameter) else parameter

    def _is_offloaded(self, parameter: Any) -> bool:
        if self._dtensor is None or not isinstance(parameter, self._dtensor):
            return False
        return bool(parameter.device.type == "cpu" and parameter.device_mesh.device_type != "cpu")

    def is_dtensor(self, parameter: Tensor) -> bool:
        """Whether a parameter is a DTensor, so that its gradient may be one."""
        return self._dtensor is not None and isinstance(parameter, self._dtensor)

    def parts(self, parameters: Sequence[Tensor], whole: Sequence[Tensor | None]) -> list[Tensor | None]:
        """This rank's part of the gradient of each parameter, laid out as the parameter is; no host read.

        A DTensor's gradient may be a ``Partial`` one, of which each rank has one summand. Those are added up
        between the ranks, all of one mesh in one all-reduce on the mesh's own process group: the one place where
        gradwatch takes part in the communication of the training itself.
        """
        gradients: list[Any] = list(whole)
        unlike = []
        for place, gradient in enumerate(gradients):
            if isinstance(gradient, self._dtensor):
                wanted = getattr(parameters[place], "placements", gradient.placements)
                if gradient.placements == wanted:
                    gradients[place] = on_this_rank(gradient)
                else:
                    unlike.append((place, wanted))
        if unlike:
            self._lay_out(gradients, unlike)
        return gradients

    def _lay_out(self, gradients: list[Any], unlike: Iterable[tuple[int, Sequence[Any]]]) -> None:
        """Bring gradients that are laid out unlike their parameters into the layout of those."""
        to_sum = []
        for place, wanted in unlike:
            gradient = gradients[place]
            needs_others = _needs_others(gradient.placements, wanted)
            # One rank alone has the whole, however that is laid out.
            is_alone = gradient.device_mesh.size() == 1
            if is_alone or (needs_others and not self._may_ask_others(gradient)):
                gradients[place] = on_this_rank(gradient)
            elif needs_others and _is_plain_sum(gradient.placements, wanted):
                to_sum.append(place)
            else:
                with torch.no_grad():
                    gradients[place] = on_this_rank(gradient.redistribute(placements=wanted))
        for place, whole in zip(to_sum, self._sums.whole([gradients[p] for p in to_sum]), strict=True):
            gradients[place] = whole

    def _may_ask_others(self, gradient: Any) -> bool:
        mesh = gradient.device_mesh
        if mesh not in self._is_among_ranks:
            # The ranks of a mesh are a tensor in the memory of the CPU.
            self._is_among_ranks[mesh] = set(mesh.mesh.flatten().tolist()) <= set(self.ranks)
        if self.agreed and self._is_among_ranks[mesh]:
            return True
        if not self._told:
            self._told = True
            log.warning(
                "gradwatch measures only this rank's summand of a partial gradient, since not all ranks of its "
                "mesh track it: the norms of such parameters are not those of the whole."
            )
        return False

    def _look(self, parameter: Any) -> Spread | None:
        handle = self._flat.get(id(parameter))
        if handle is not None:
            return spread_of_flat(handle, parameter)
        if self.is_dtensor(parameter):
            return spread_of_dtensor(parameter, self._cells)
        return None


def _needs_others(placements: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether other ranks' data is needed to get from one layout to the other."""
    return any(p != w and not p.is_replicate() for p, w in zip(placements, wanted, strict=True))


def _is_plain_sum(placements: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether the layouts differ by summands that every rank wants to have the sum of."""
    return all(
        p == w or (p.is_partial() and p.reduce_op == "sum" and w.is_replicate())
        for p, w in zip(placements, wanted, strict=True)
    )
