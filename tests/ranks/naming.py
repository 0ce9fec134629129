"""What ranks do in ``test_naming``: what the lines and names of a wrapped model are."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from gradwatch.measure.lines import Lines
from tests.ranks.training import Net, net

NAMING = (
    "in_copies",
    "in_copies_inside",
    "compiled_in_copies",
    "flattened",
    "flattened_inside",
    "in_one",
    "in_parts",
)


def told_of(model: nn.Module) -> dict[str, Any]:
    lines = Lines(model)
    behind = {line: type(lines.module_of(line)).__name__ for line in lines.lines}
    return {"names": list(lines.names.values()), "lines": behind, "owners": list(lines.owners)}


def plain() -> dict[str, Any]:
    return told_of(net())


def in_copies(rank: int, world: int) -> Any:
    return told_of(DistributedDataParallel(net()))


def in_copies_inside(rank: int, world: int) -> Any:
    model = net()
    model.wide = DistributedDataParallel(model.wide)
    return told_of(model)


def compiled_in_copies(rank: int, world: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return told_of(torch.compile(DistributedDataParallel(torch.compile(net()))))  # type: ignore[arg-type]


def _flattened(module: nn.Module, use_orig_params: bool = True) -> nn.Module:
    with warnings.catch_warnings():
        # Of its being deprecated, and slow on a CPU.
        warnings.simplefilter("ignore")
        return FullyShardedDataParallel(module, use_orig_params=use_orig_params, device_id=torch.device("cpu"))


def flattened(rank: int, world: int) -> Any:
    return told_of(_flattened(net()))


def flattened_inside(rank: int, world: int) -> Any:
    model: Net = net()
    model.wide, model.head = _flattened(model.wide), _flattened(model.head)
    return told_of(_flattened(model))


def in_one(rank: int, world: int) -> Any:
    """All parameters of a module as a single flat one."""
    model: Net = net()
    model.wide = _flattened(model.wide, use_orig_params=False)
    return told_of(_flattened(model, use_orig_params=False))


def in_parts(rank: int, world: int) -> Any:
    model: Net = net()
    fully_shard(model.wide)
    return told_of(fully_shard(model))
