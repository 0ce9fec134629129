"""What ranks do in ``test_training``: each kind of parallel training, tracked."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from tests.ranks.training import MAX_NORM, PARTS, Net, halve, net, tracked

# What the one process does that has all the data, by the name of what the ranks do.
ON_TWO: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp_own_clipping": {"own": True},
    "ddp_no_sync": {"own": True, "passes": 3},
    "ddp_bucket_view": {"own": True},
    "ddp_static_graph": {"own": True},
    "ddp_find_unused": {"own": True},
    "zero_optimizer": {},
    "fsdp2": {},
    "fsdp2_own_clipping": {"own": True},
    "fsdp2_accumulating": {"own": True, "passes": 3},
    "fsdp1": {},
    "fsdp1_orig_params": {},
    "fsdp1_own_clipping": {"own": True},
    "fsdp1_orig_params_own_clipping": {"own": True, "passes": 3},
    "fsdp1_no_shard": {},
    "tensor_parallel": {"own": True, "per_rank": False},
    "sequence_parallel": {"per_rank": False},
    "sequence_parallel_own_clipping": {"own": True, "per_rank": False},
}
ON_FOUR: dict[str, dict[str, Any]] = {
    "ddp": {"world": 4},
    "fsdp2": {"world": 4},
    "fsdp1_orig_params": {"world": 4},
    "replicated_and_sharded": {"world": 4},
    "hybrid_fsdp1": {"world": 4, "own": True},
    "tensor_and_data_parallel": {"world": 2, "own": True},
    "sequence_and_data_parallel": {"world": 2},
    "pipeline_stages": {"world": 2},
}
ON_RECENT_TORCH = (
    "fsdp2",
    "fsdp2_own_clipping",
    "fsdp2_accumulating",
    "sequence_parallel",
    "sequence_parallel_own_clipping",
    "replicated_and_sharded",
    "tensor_and_data_parallel",
    "sequence_and_data_parallel",
    "pipeline_stages",
)


def ddp(rank: int, world: int, **options: Any) -> Any:
    model = net()
    return tracked(DistributedDataParallel(model, **options), model, rank)


def ddp_own_clipping(rank: int, world: int) -> Any:
    model = net()
    return tracked(DistributedDataParallel(model), model, rank, clipping=halve)


def ddp_no_sync(rank: int, world: int) -> Any:
    model = net()
    wrapped = DistributedDataParallel(model)
    return tracked(wrapped, model, rank, clipping=halve, passes=3, unsynchronized=wrapped.no_sync)


def ddp_bucket_view(rank: int, world: int) -> Any:
    model = net()
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    return tracked(wrapped, model, rank, clipping=halve)


def ddp_static_graph(rank: int, world: int) -> Any:
    model = net()
    wrapped = DistributedDataParallel(model, static_graph=True)
    return tracked(wrapped, model, rank, clipping=halve)


def ddp_find_unused(rank: int, world: int) -> Any:
    model = net()
    model.unused = nn.Linear(2, 2)
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    return tracked(wrapped, model, rank, clipping=halve)


def zero_optimizer(rank: int, world: int) -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # here, since its module warns of torch's own

    model = net()
    wrapped = DistributedDataParallel(model)
    optimizer = ZeroRedundancyOptimizer(wrapped.parameters(), torch.optim.SGD, lr=0.1, momentum=0.5)
    return tracked(wrapped, model, rank, optimizer)


def sharded(mesh: Any = None) -> Net:
    model = net()
    for part in PARTS[1:]:
        fully_shard(getattr(model, part), mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp2(rank: int, world: int) -> Any:
    model = sharded()
    return tracked(model, model, rank)


def fsdp2_own_clipping(rank: int, world: int) -> Any:
    model = sharded()
    return tracked(model, model, rank, clipping=halve)


def fsdp2_accumulating(rank: int, world: int) -> Any:
    model = sharded()

    class Unsynchronized:
        def __enter__(self) -> None:
            model.set_requires_gradient_sync(False)

        def __exit__(self, *_: object) -> None:
            model.set_requires_gradient_sync(True)

    return tracked(model, model, rank, clipping=halve, passes=3, unsynchronized=Unsynchronized)


def flattened(
    use_orig_params: bool, strategy: ShardingStrategy = ShardingStrategy.FULL_SHARD, mesh: Any = None
) -> Any:
    model = net()
    with warnings.catch_warnings():
        # Of its being deprecated, and slow on a CPU.
        warnings.simplefilter("ignore")
        return FullyShardedDataParallel(
            model,
            use_orig_params=use_orig_params,
            auto_wrap_policy=lambda module, recurse, nonwrapped_numel: recurse or not isinstance(module, Net),
            device_id=torch.device("cpu"),
            sharding_strategy=strategy,
            device_mesh=mesh,
        )


def fsdp1(rank: int, world: int) -> Any:
    model = flattened(use_orig_params=False)
    clipping = lambda _: model.clip_grad_norm_(MAX_NORM)  # noqa: E731
    return tracked(model, model.module, rank, clipping=clipping)


def fsdp1_orig_params(rank: int, world: int) -> Any:
    model = flattened(use_orig_params=True)
    clipping = lambda _: model.clip_grad_norm_(MAX_NORM)  # noqa: E731
    return tracked(model, model.module, rank, clipping=clipping)


def fsdp1_own_clipping(rank: int, world: int) -> Any:
    model = flattened(use_orig_params=False)
    return tracked(model, model.module, rank, clipping=halve)


def fsdp1_orig_params_own_clipping(rank: int, world: int) -> Any:
    model = flattened(use_orig_params=True)
    return tracked(model, model.module, rank, clipping=halve, passes=3, unsynchronized=model.no_sync)


def fsdp1_no_shard(rank: int, world: int) -> Any:
    model = flattened(use_orig_params=True, strategy=ShardingStrategy.NO_SHARD)
    return tracked(model, model.module, rank)


def tensor_parallel(rank: int, world: int) -> Any:
    """Beside it, parameters that are ordinary tensors on every rank."""
    model = net()
    mesh = init_device_mesh("cpu", (world,))
    parallelize_module(model, mesh, {"wide": ColwiseParallel(), "narrow": RowwiseParallel()})
    return tracked(model, model, 0, clipping=halve)


def in_sequence(model: Net, mesh: Any) -> Net:
    """Gradients that are partial sums, and one that is whole where its parameter is in parts."""
    plan = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "norm": SequenceParallel(),
        "wide": ColwiseParallel(input_layouts=Shard(1)),
        "narrow": RowwiseParallel(output_layouts=Shard(1)),
        "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
    }
    return parallelize_module(model, mesh, plan)


def sequence_parallel(rank: int, world: int) -> Any:
    model = in_sequence(net(), init_device_mesh("cpu", (world,)))
    return tracked(model, model, 0)


def sequence_parallel_own_clipping(rank: int, world: int) -> Any:
    model = in_sequence(net(), init_device_mesh("cpu", (world,)))
    return tracked(model, model, 0, clipping=halve)


def replicated_and_sharded(rank: int, world: int) -> Any:
    """Sums are formed over the two ranks of one copy, not over all four."""
    model = sharded(init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts")))
    return tracked(model, model, rank)


def hybrid_fsdp1(rank: int, world: int) -> Any:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts"))
    model = flattened(use_orig_params=True, strategy=ShardingStrategy.HYBRID_SHARD, mesh=mesh)
    return tracked(model, model.module, rank, clipping=halve)


def tensor_and_data_parallel(rank: int, world: int) -> Any:
    """Some parameters lie on both dimensions of the mesh, some on one of them."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    model = net()
    parallelize_module(model, mesh["tensor"], {"wide": ColwiseParallel(), "narrow": RowwiseParallel()})
    for part in PARTS[1:]:
        fully_shard(getattr(model, part), mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    return tracked(model, model, rank // 2, clipping=halve)


def sequence_and_data_parallel(rank: int, world: int) -> Any:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    model = in_sequence(net(), mesh["tensor"])
    for part in PARTS[1:]:
        fully_shard(getattr(model, part), mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    return tracked(model, model, rank // 2)


def pipeline_stages(rank: int, world: int) -> Any:
    """Two models that know nothing of each other, each on two ranks."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("stage", "data"))
    model = sharded(mesh["data"])
    return tracked(model, model, rank % 2)
