"""How a parameter lies on the ranks.

A plain tensor is whole: in one process, and under DistributedDataParallel or ZeroRedundancyOptimizer, whose
gradients are equal on all ranks at the step. A DTensor with a ``Shard`` placement, and what
FullyShardedDataParallel has flattened, is a part of the whole; the squares of all parts add up to it.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Cells", "Spread", "flattened_into", "joined", "spread_of_dtensor", "spread_of_flat"]

# Groups of global ranks, ``[copies, parts]``: each row has one whole copy, a part on each of its ranks.
Cells = tuple[tuple[int, ...], ...]


class Spread(NamedTuple):
    """How a parameter lies on the ranks.

    Attributes:
        cells: the ranks known to have parameters that lie like this one, this rank among them.
        divided: whether there is more than one part; if not, every rank holds the whole.
        form: what it looks like, the same on every rank of a row.
    """

    cells: Cells
    divided: bool
    form: str


def flattened_into(parameters: Iterable[Tensor]) -> dict[int, Any]:
    """FullyShardedDataParallel's handle of each parameter that it has flattened, by the parameter's id.

    A parameter does not know its handle, and the module that does need not be among those to be reported on;
    so the handles are looked for among all objects, once, and only where a parameter is marked as flattened.
    """
    marked = {id(parameter) for parameter in parameters if getattr(parameter, "_fsdp_flattened", False)}
    if not marked:
        return {}
    kind: Any = sys.modules["torch.distributed.fsdp._flat_param"].FlatParamHandle
    found = {}
    for handle in [thing for thing in gc.get_objects() if type(thing) is kind]:
        flat = handle.flat_param
        for parameter in (flat, *(flat._params or ()), *(flat._shared_params or ())):
            if id(parameter) in marked:
                found[id(parameter)] = handle
    return found


def spread_of_dtensor(parameter: Any, known: dict[Any, Cells]) -> Spread | None:
    """How a DTensor lies; None where no other rank has anything to do with it.

    Args:
        parameter: the DTensor.
        known: what was found before, so that parameters that lie alike share their cells.
    """
    mesh, placements = parameter.device_mesh, parameter.placements
    if mesh.get_coordinate() is None or mesh.size() == 1:
        return None
    divided = [dim for dim, placement in enumerate(placements) if not placement.is_replicate()]
    # The gradient of a replicated parameter may be a partial one, on any dimension of the mesh.
    dims = divided or list(range(mesh.ndim))
    where = (mesh, tuple(dims))
    if where not in known:
        known[where] = _cells_along(mesh, dims)
    cells = known[where]
    form = f"{tuple(parameter.shape)} {parameter.dtype} {placements} {tuple(mesh.shape)}"
    return Spread(cells, bool(divided) and len(cells[0]) > 1, form)


def _cells_along(mesh: Any, dims: Sequence[int]) -> Cells:
    """The ranks that differ in these dimensions of the mesh only, for each place in its other dimensions.

    Of a mesh cut out of a larger one these are all that the larger one has, where it has the same dimensions.
    """
    names, root = mesh.mesh_dim_names or (), _root_of(mesh)
    if names and set(names) <= set(root.mesh_dim_names or ()):
        mesh, dims = root, [root.mesh_dim_names.index(names[dim]) for dim in dims]
    kept = [dim for dim in range(mesh.ndim) if dim not in dims]
    # The ranks of a mesh are a tensor in the memory of the CPU.
    ranks = mesh.mesh.permute(*kept, *dims).reshape(math.prod(mesh.size(dim) for dim in kept), -1)
    return tuple(map(tuple, ranks.tolist()))


def _root_of(mesh: Any) -> Any:
    if hasattr(mesh, "_get_root_mesh"):
        return mesh._get_root_mesh()
    resources = getattr(sys.modules["torch.distributed.device_mesh"], "_mesh_resources", None)  # torch 2.6
    return mesh if resources is None else resources.get_root_mesh(mesh)


def spread_of_flat(handle: Any, parameter: Tensor) -> Spread | None:
    """How what FullyShardedDataParallel has flattened lies; None where it keeps the whole on each rank."""
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


def joined(partitions: Iterable[Cells]) -> tuple[int, ...]:
    """The smallest set of ranks around this one that splits no cell: every rank in it finds the same set."""
    # Parameters that lie alike share their cells.
    different = list({id(cells): cells for cells in partitions}.values())
    found, size = {torch.distributed.get_rank() if different else 0}, 0
    while size < len(found):
        size = len(found)
        for cells in different:
            found.update(*(cell for cell in cells if not found.isdisjoint(cell)))
    return tuple(sorted(found))
