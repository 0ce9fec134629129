"""Which part of a parameter is on this rank, and which ranks have the other parts.

A plain tensor is whole: in one process, and under DistributedDataParallel or ZeroRedundancyOptimizer, whose
gradients are equal on all ranks at the step. A DTensor with a ``Shard`` placement, and what
FullyShardedDataParallel has flattened, is a part of the whole; the squares of all parts add up to it.

Nothing of ``torch.distributed`` is imported here: a parameter of one of these kinds has brought its module along.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

__all__ = ["Shards", "flattened_into", "on_this_rank", "version_of", "whole_number"]

log = logging.getLogger("gradwatch")

# In place of versions that torch does not count. They go down, so that none follows another as a version would.
_unlike_any = itertools.count(-2, -1)


class Spread(NamedTuple):
    """How a parameter lies on the ranks.

    Attributes:
        cells: the ranks known to share parameters of this kind, ``[copies, parts]`` global ranks: each row holds
            one whole copy, a part on each of its ranks.
        divided: whether there is more than one part; if not, every rank holds the whole.
        form: what it looks like, the same on every rank of a row.
    """

    cells: tuple[tuple[int, ...], ...]
    divided: bool
    form: str


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
        self._dtensor = _dtensor_type()
        # With the parameters themselves, so that none of their ids is given to another tensor.
        self._spread: dict[int, tuple[Tensor, Spread | None]] = {}
        self.ranks = _joined([spread.cells for spread in map(self.spread, parameters) if spread is not None])
        self.agreed = False
        self._sums = _PartialSums()
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

    def gradients(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """This rank's part of the gradient of each parameter, laid out as the parameter is; no host read.

        A DTensor's gradient may be a ``Partial`` one, of which each rank has one summand. Those are added up
        between the ranks, all of one mesh in one all-reduce on the mesh's own process group: the one place where
        gradwatch takes part in the communication of the training itself.
        """
        gradients: list[Any] = [parameter.grad for parameter in parameters]
        if self._dtensor is None:
            return gradients
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
            if needs_others and not self._may_ask_others(gradient):
                gradients[place] = on_this_rank(gradient)
            elif needs_others and _is_plain_sum(gradient.placements, wanted):
                to_sum.append(place)
            else:
                with torch.no_grad():
                    gradients[place] = on_this_rank(gradient.redistribute(placements=wanted))
        for place, whole in zip(to_sum, self._sums.whole([gradients[p] for p in to_sum]), strict=True):
            gradients[place] = whole

    def _may_ask_others(self, gradient: Any) -> bool:
        # The ranks of a mesh are a tensor in the memory of the CPU.
        if self.agreed and set(gradient.device_mesh.mesh.flatten().tolist()) <= set(self.ranks):
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
            return _spread_of_flat(handle, parameter)
        if self._dtensor is not None and isinstance(parameter, self._dtensor):
            return _spread_of_dtensor(parameter)
        return None


class _PartialSums:
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


def on_this_rank(tensor: Tensor) -> Tensor:
    """A DTensor's part on this rank, any other tensor itself; no communication."""
    kind = _dtensor_type()
    if kind is None or not isinstance(tensor, kind):
        return tensor
    with torch.no_grad():
        local = cast("Any", tensor).to_local()
    # The result of a collective that may be under way still: to be waited for in the order of the stream.
    wait = getattr(local, "wait", None)
    return cast("Tensor", local if wait is None else wait())


def whole_number(number: Tensor) -> Tensor | None:
    """A number that torch has computed; None where each rank has only a part of it."""
    placements = getattr(number, "placements", ())
    return on_this_rank(number) if all(placement.is_replicate() for placement in placements) else None


def version_of(gradient: Tensor) -> int:
    """A number that every change of the tensor in place raises, as far as torch counts them.

    Not for one made in inference mode: the number is another each time, for what may have changed.
    """
    if gradient.is_inference():
        return next(_unlike_any)
    part = on_this_rank(gradient)
    # A DTensor counts what is done to it, and its part what is done to that, as fully_shard does.
    return gradient._version if part is gradient else gradient._version + part._version


def flattened_into(parameters: Iterable[Tensor]) -> dict[int, Any]:
    """FullyShardedDataParallel's handle of each parameter that it has flattened, by the parameter's id.

    A parameter does not know its handle, and the module that does need not be among those to be reported on;
    so the handles are looked for among all objects, once, and only where a parameter is marked as flattened.
    """
    marked = {id(parameter) for parameter in parameters if getattr(parameter, "_fsdp_flattened", False)}
    if not marked:
        return {}
    kind = sys.modules["torch.distributed.fsdp._flat_param"].FlatParamHandle
    found = {}
    for handle in [thing for thing in gc.get_objects() if type(thing) is kind]:
        flat = handle.flat_param
        for parameter in (flat, *(flat._params or ()), *(flat._shared_params or ())):
            if id(parameter) in marked:
                found[id(parameter)] = handle
    return found


def _dtensor_type() -> Any:
    module = sys.modules.get("torch.distributed.tensor")
    return None if module is None else module.DTensor


def _spread_of_dtensor(parameter: Any) -> Spread | None:
    mesh, placements = parameter.device_mesh, parameter.placements
    if mesh.get_coordinate() is None or mesh.size() == 1:
        return None
    divided = [dim for dim, placement in enumerate(placements) if not placement.is_replicate()]
    # The gradient of a replicated parameter may be a partial one, on any dimension of the mesh.
    dims = divided or list(range(mesh.ndim))
    kept = [dim for dim in range(mesh.ndim) if dim not in dims]
    parts = 1
    for dim in dims:
        parts *= mesh.size(dim)
    # The ranks of a mesh are a tensor in the memory of the CPU.
    rows = mesh.mesh.permute(*kept, *dims).reshape(-1, parts).tolist()
    form = f"{tuple(parameter.shape)} {parameter.dtype} {placements} {tuple(mesh.shape)}"
    return Spread(tuple(map(tuple, rows)), bool(divided) and parts > 1, form)


def _spread_of_flat(handle: Any, parameter: Any) -> Spread | None:
    if not handle.uses_sharded_strategy:
        return None
    ranks = torch.distributed.get_process_group_ranks(handle.process_group)
    if len(ranks) == 1:
        return None
    flat = handle.flat_param
    params = flat._params or ()
    index = next((i for i, one in enumerate(params) if one is parameter), None)
    form = f"{flat._fqns if index is None else flat._fqns[index]} {tuple(flat._unpadded_unsharded_size)}"
    return Spread((tuple(ranks),), True, form)


def _joined(partitions: Sequence[tuple[tuple[int, ...], ...]]) -> tuple[int, ...]:
    """The smallest set of ranks around this one that splits no cell: every rank in it finds the same set."""
    own = torch.distributed.get_rank() if partitions else 0
    joined, size = {own}, 0
    while size < len(joined):
        size = len(joined)
        for cells in partitions:
            joined.update(*(cell for cell in cells if not joined.isdisjoint(cell)))
    return tuple(sorted(joined))


def _needs_others(placements: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether other ranks' data is needed to get from one layout to the other."""
    return any(p != w and not p.is_replicate() for p, w in zip(placements, wanted, strict=True))


def _is_plain_sum(placements: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether the layouts differ by summands that every rank wants to have the sum of."""
    return all(
        p == w or (p.is_partial() and p.reduce_op == "sum" and w.is_replicate())
        for p, w in zip(placements, wanted, strict=True)
    )
