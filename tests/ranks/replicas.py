"""What ranks do in ``test_replicas``."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradwatch

ON_TWO = (
    "equal_replicas",
    "accumulating_replicas",
    "replicas_not_reduced",
    "replicas_with_a_hook",
    "no_wrapper",
    "only_rank_0_tracks_replicas",
)
STEPS = 96


def _train(
    rank: int,
    *,
    tracks: bool = True,
    reduces: bool = True,
    passes: int = 1,
    hook: bool = False,
    wraps: bool = True,
) -> dict[str, Any]:
    torch.manual_seed(0)
    inner = nn.Linear(4, 3)
    model: Any = DistributedDataParallel(inner) if wraps else inner
    if hook:
        model.register_comm_hook(None, _local)
    called = model if reduces else inner
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    data = torch.Generator().manual_seed(1 + rank)
    began = time.monotonic()
    with gradwatch.track(optimizer, model, sinks=[]) if tracks else nullcontext() as watch:
        for _ in range(STEPS):
            optimizer.zero_grad()
            for number in range(passes):
                syncs = not wraps or number == passes - 1
                with nullcontext() if syncs else model.no_sync():
                    called(torch.randn(8, 4, generator=data)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            dist.barrier()
        told = [] if watch is None else watch.history
        # The end takes the keys back, of which the other rank may not have read the last.
        dist.barrier()
    return {
        "alerts": [] if watch is None else [(a.severity, a.step) for a in watch.alerts if a.rule == "diverged"],
        "compared": [record.compared for record in told if record.compared is not None],
        "errors": 0 if watch is None else watch.health().internal_errors,
        "seconds": time.monotonic() - began,
    }


def _local(_: object, bucket: Any) -> Any:
    future: Any = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


# DistributedDataParallel checks annotations, and knows none that are strings.
_local.__annotations__.clear()


def equal_replicas(rank: int, world: int) -> Any:
    return _train(rank)


def accumulating_replicas(rank: int, world: int) -> Any:
    return _train(rank, passes=2)


def replicas_not_reduced(rank: int, world: int) -> Any:
    return _train(rank, reduces=False)


def replicas_with_a_hook(rank: int, world: int) -> Any:
    return _train(rank, hook=True)


def no_wrapper(rank: int, world: int) -> Any:
    return _train(rank, wraps=False)


def only_rank_0_tracks_replicas(rank: int, world: int) -> Any:
    return _train(rank, tracks=rank == 0)
