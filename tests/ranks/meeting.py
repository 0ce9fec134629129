"""What ranks do in ``test_ranks``: meetings and sums alone, with no training."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch.distributed as dist

from gradwatch.measure.sharding.ranks import Peers
from gradwatch.measure.sharding.store import agree
from tests.machine import open_sockets

ON_TWO = ON_FOUR = (
    "all_agree",
    "sums",
    "nothing_waits",
    "some_of_the_ranks",
    "one_alone",
    "other_terms",
    "one_leaves",
    "one_never_adds",
    "connections",
)
ON_RECENT_TORCH: tuple[str, ...] = ()


class Log(logging.Handler):
    """What gradwatch has logged while it is in use."""

    def __enter__(self) -> list[str]:
        self.lines: list[str] = []
        logging.getLogger("gradwatch").addHandler(self)
        return self.lines

    def __exit__(self, *_: object) -> None:
        logging.getLogger("gradwatch").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def store() -> Any:
    return dist.distributed_c10d._get_default_store()


def all_agree(rank: int, world: int) -> list[bool]:
    return [
        agree(store(), "all willing", world, True, 20.0),
        agree(store(), "one unwilling", world, rank != 0, 20.0),
        agree(store(), "one absent", world, True, 0.1) if rank != 0 else False,
    ]


def sums(rank: int, world: int) -> dict[str, Any]:
    """Blocks shorter than, as long as and longer than a message."""
    before = set(dist.distributed_c10d._world.pg_map), dist.distributed_c10d._world.group_count
    peers = Peers.meet(range(world), "sums", 4)
    assert peers is not None
    totals = []
    for size in (1, 4, 9):
        reduction = peers.reduce(np.arange(size) + 10.0**rank)
        assert reduction.wait(20.0)
        totals.append(reduction.total())
    after = set(dist.distributed_c10d._world.pg_map), dist.distributed_c10d._world.group_count
    left = peers.leave(normally=True)
    lost = peers.has_lost_one()
    peers.close(together=True)
    return {"totals": totals, "left": left, "lost": lost, "torch knows of nothing": before == after}


def nothing_waits(rank: int, world: int) -> bool:
    """Rank 0 begins a sum, and sees that it is not ready before the others have begun it."""
    peers = Peers.meet(range(world), "nothing waits", 1)
    assert peers is not None
    ready = None
    if rank == 0:
        reduction = peers.reduce(np.ones(1))
        ready = reduction.ready()
    dist.barrier()
    if rank != 0:
        reduction = peers.reduce(np.ones(1))
    assert reduction.wait(20.0)
    peers.close(together=True)
    return ready


def some_of_the_ranks(rank: int, world: int) -> float | None:
    """Only the ranks that share something meet; each half by itself."""
    half = range(world // 2) if rank < world // 2 else range(world // 2, world)
    peers = Peers.meet(half, "half", 1)
    assert peers is not None
    reduction = peers.reduce(np.full(1, rank + 1.0))
    assert reduction.wait(20.0)
    total = reduction.total()
    peers.close(together=True)
    return total[0]


def one_alone(rank: int, world: int) -> dict[str, Any]:
    """Rank 0 meets nobody at first; all meet afterwards."""
    Peers.PATIENCE = 0.3
    alone = None
    with Log() as told:
        if rank == 0:
            alone = Peers.meet(range(world), "alone", 1)
    dist.barrier()
    Peers.PATIENCE = 20.0
    together = Peers.meet(range(world), "alone", 1)
    met = together is not None
    if together is not None:
        together.close(together=True)
    return {"alone": alone is not None, "told": told, "together": met}


def other_terms(rank: int, world: int) -> bool:
    Peers.PATIENCE = 0.3
    try:
        return Peers.meet(range(world), f"every {rank + 1}", 1) is not None
    finally:
        Peers.PATIENCE = 20.0


def one_leaves(rank: int, world: int) -> dict[str, Any]:
    """The others see that a rank will give no share any more, without waiting for it."""
    peers = Peers.meet(range(world), "one leaves", 1)
    assert peers is not None
    before = peers.has_lost_one()
    dist.barrier()
    if rank == 0:
        peers.leave(normally=False)
        peers.close(together=False)
    dist.barrier()
    after = peers.has_lost_one()
    if rank != 0:
        peers.close(together=True)
    return {"before": before, "after": after}


def one_never_adds(rank: int, world: int) -> dict[str, Any]:
    """Rank 0 gives up a sum that the others, alive, have not begun; it does not wait for them."""
    peers = Peers.meet(range(world), "one never adds", 1)
    assert peers is not None
    seconds, ready = 0.0, None
    if rank == 0:
        reduction = peers.reduce(np.ones(1))
        began = time.monotonic()
        left = peers.leave(normally=False)
        peers.close(together=False)
        seconds = time.monotonic() - began
        ready = reduction.total()
    dist.barrier()
    if rank != 0:
        left = peers.leave(normally=True)
        peers.close(together=False)
    return {"seconds": seconds, "left": left, "total": ready}


def connections(rank: int, world: int) -> int:
    """How many sockets a group opens on this rank, once it has formed a sum."""
    before = open_sockets()
    peers = Peers.meet(range(world), "connections", 1)
    assert peers is not None
    dist.barrier()
    opened = open_sockets() - before
    peers.close(together=True)
    return opened
