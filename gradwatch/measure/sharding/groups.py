"""Connections of gradwatch's own, on the CPU."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch

from gradwatch.blocks import FloatArray

__all__ = ["all_reduce", "new_group"]


def new_group(store: Any, key: str, place: int, members: int, patience: float) -> Any:
    """A gloo group that torch's own list of groups does not know and does not count.

    Args:
        store: where its members find each other.
        key: to be used once.
        place: of this rank among the members.
        members: how many there are.
        patience: how long to wait for a connection, in seconds.
    """
    distributed: Any = torch.distributed
    gloo = distributed.ProcessGroupGloo
    options = gloo._Options()
    options._devices = _devices(gloo)
    options._timeout = timedelta(seconds=patience)
    options._threads = 1
    own = distributed.PrefixStore(key, store)
    return gloo(own, place, members, options)


def _devices(gloo: Any) -> list[Any]:
    """Where to talk: as torch chooses it, over the interfaces that are named for it."""
    named = [name for name in os.environ.get("GLOO_SOCKET_IFNAME", "").split(",") if name]
    # Connections only between ranks that do talk to each other: two for each rank, not one to every other rank.
    lazily = {"lazy_init": True} if "lazy_init" in (gloo.create_default_device.__doc__ or "") else {}
    if named:
        return [gloo.create_device(interface=name, **lazily) for name in named]
    return [gloo.create_default_device(**lazily)]


def all_reduce(group: Any, message: FloatArray) -> Any:
    """Begin to add up a message, in place, over the members of a group; what torch tells of it."""
    distributed: Any = torch.distributed
    options = distributed.AllreduceOptions()
    options.reduceOp = distributed.ReduceOp.SUM
    # A sum may be under way for as long as the slowest rank takes to get there.
    options.timeout = timedelta(days=1)
    return group.allreduce([torch.from_numpy(message)], options)
