"""What ranks do in ``test_behaviour``: who waits for whom, and what is sent."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.nn.parallel import DistributedDataParallel

import gradwatch
from gradwatch.errors import NonFiniteGradientError
from gradwatch.judge.rule import Finding
from gradwatch.measure.sharding import ranks
from gradwatch.measure.sharding.ranks import Peers
from gradwatch.measure.sharding.shards import Shards
from gradwatch.records import Alert, Severity, StepRecord
from gradwatch.sinks import Memory
from tests.ranks.meeting import Log
from tests.ranks.training import batch, halve, loss_of, net, norms_in, optimizer_of, tracked, train
from tests.ranks.wrapped import flattened, in_sequence, sharded

ON_TWO = (
    "one_raises",
    "one_leaves_early",
    "one_exits_from_a_callback",
    "steps_in_other_order",
    "missing_and_nonfinite",
    "only_rank_0_of_replicas",
    "only_rank_0_of_parts",
    "only_rank_0_reads",
    "each_third",
    "two_optimizers",
    "bare_and_tracked",
    "without_hooks",
    "scaled",
    "guarded",
    "guarded_alone",
    "torchs_own_norm",
    "flat_clip_method",
)
ON_FOUR = ("one_raises", "two_optimizers")
ON_RECENT_TORCH = (
    "only_rank_0_reads",
    "each_third",
    "two_optimizers",
    "bare_and_tracked",
    "without_hooks",
    "torchs_own_norm",
)


class Patience:
    """A shorter one, for ranks that wait in vain."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.usual, Peers.PATIENCE = Peers.PATIENCE, self.seconds

    def __exit__(self, *_: object) -> None:
        Peers.PATIENCE = self.usual


class Sent:
    """Counts what gradwatch sends, and what everybody does over the process group of the training."""

    def __enter__(self) -> Sent:
        self.bytes: list[int] = []
        self.of_training = dist.group.WORLD._get_sequence_number_for_group()
        self._send = send = ranks.all_reduce

        def counted(group: Any, message: Any) -> Any:
            self.bytes.append(message.nbytes)
            return send(group, message)

        ranks.all_reduce = counted
        return self

    def __exit__(self, *_: object) -> None:
        ranks.all_reduce = self._send
        self.of_training = dist.group.WORLD._get_sequence_number_for_group() - self.of_training


def by_hand(world: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Parameters in parts, for loops in which the ranks need nothing of each other."""
    model = fully_shard(nn.Linear(4, 6), mesh=init_device_mesh("cpu", (world,)))
    return model, optimizer_of(model.parameters())


def step_by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, value: float) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    optimizer.step()


def outcome(watch: gradwatch.Watch, told: list[str]) -> dict[str, Any]:
    return {
        "records": [(r.optimizer, r.step, r.norm_before) for r in watch.history],
        "dropped": watch.health().dropped_records,
        "errors": watch.health().internal_errors,
        "told": [line for line in told if "gradwatch" in line],
    }


def one_raises(rank: int, world: int) -> dict[str, Any]:
    """Rank 0 leaves by an exception at its 20th step, the others go on to their 40th."""
    model, optimizer = by_hand(world)
    began = time.monotonic()
    with Log() as told:
        try:
            with gradwatch.track(optimizer, model, rules=()) as watch:
                for step in range(1, 41):
                    step_by_hand(model, optimizer, 1.0)
                    if rank == 0 and step == 20:
                        raise ZeroDivisionError
        except ZeroDivisionError:
            pass
    return {**outcome(watch, told), "seconds": time.monotonic() - began}


def one_leaves_early(rank: int, world: int) -> dict[str, Any]:
    """Rank 0 leaves after 20 steps as if all were well, the others after a thousand."""
    model, optimizer = by_hand(world)
    with Patience(2.0), Log() as told, gradwatch.track(optimizer, model, rules=()) as watch:
        for _ in range(20 if rank == 0 else 1000):
            step_by_hand(model, optimizer, 1.0)
    return outcome(watch, told)


class EachFifth:
    """An alert in each fifth step."""

    id = "each fifth"
    severity: Severity = "warning"
    fires_after = clears_after = 1

    def look(self, record: StepRecord) -> list[Finding]:
        return [Finding(None, 0.0, 0.0, "a fifth")] if record.step % 5 == 0 else []


def one_exits_from_a_callback(rank: int, world: int) -> dict[str, Any]:
    """Rank 0 exits from an alert's callback, first in the middle of a block of records, then in that of the end."""
    model, optimizer = by_hand(world)
    exits: list[int] = []

    def leave(alert: Alert) -> None:
        if rank == 0 and alert.state == "firing" and alert.step in (5, 20):
            exits.append(alert.step)
            raise SystemExit(1)

    with (
        Patience(20.0),
        suppress(SystemExit),
        gradwatch.track(optimizer, model, rules=[EachFifth()], on_alert=leave) as watch,
    ):
        for _ in range(24):
            with suppress(SystemExit):
                step_by_hand(model, optimizer, 1.0)
        until = time.monotonic() + 5.0
        while len(in_the_loop := seen_by(watch)) < 16 and time.monotonic() < until:
            time.sleep(0.01)
        dist.barrier()
        began = time.monotonic()
    return {"in the loop": in_the_loop, "exits": exits, "seconds": time.monotonic() - began}


def seen_by(watch: gradwatch.Watch) -> list[int]:
    """The steps that it has records of, whatever a callback raises."""
    with suppress(SystemExit):
        return [record.step for record in watch.history]
    return []


def steps_in_other_order(rank: int, world: int) -> dict[str, Any]:
    """Sums of different steps are no norms."""
    several = {"first": by_hand(world), "second": by_hand(world)}
    with Log() as told:
        optimizers = {name: optimizer for name, (_, optimizer) in several.items()}
        with gradwatch.track(optimizers, rules=()) as watch:
            for _ in range(3):
                for name in sorted(several, reverse=rank == 0):
                    step_by_hand(*several[name], 1.0)
            for _ in range(3):
                for name in sorted(several):
                    step_by_hand(*several[name], 2.0)
    return outcome(watch, told)


def missing_and_nonfinite(rank: int, world: int) -> dict[str, Any]:
    """A NaN in the last rank's part is in every rank's record; so is what no rank has."""
    model, optimizer = by_hand(world)
    with gradwatch.track(optimizer, model, rules=()) as watch:
        model.weight.grad = torch.full_like(model.weight, float("nan") if rank == world - 1 else 1.0)
        optimizer.step()
        model.zero_grad()
        model.bias.grad = torch.ones_like(model.bias)
        optimizer.step()
    return {"nonfinite": [r.nonfinite for r in watch.history], "missing": [r.missing for r in watch.history]}


def only_rank_0_of_replicas(rank: int, world: int) -> dict[str, Any] | None:
    """Nothing is in parts: nobody has to be met."""
    model = net()
    wrapped = DistributedDataParallel(model)
    with Log() as told:
        if rank != 0:
            train(wrapped, optimizer_of(wrapped.parameters()), rank)
            return None
        began = time.monotonic()
        norms = tracked(wrapped, model, rank)
        return {"norms": norms, "told": told, "seconds": time.monotonic() - began}


def only_rank_0_of_parts(rank: int, world: int) -> dict[str, Any] | None:
    """Also where gradients are partial sums, which no rank can have the whole of by itself."""
    model = in_sequence(net(), init_device_mesh("cpu", (world,)))
    with Patience(0.5), Log() as told:
        if rank != 0:
            train(model, optimizer_of(model.parameters()), 0)
            return None
        norms = tracked(model, model, 0)
        return {"norms": norms, "told": told}


def only_rank_0_reads(rank: int, world: int) -> dict[str, Any]:
    model = sharded()
    optimizer = optimizer_of(model.parameters())
    newest: list[int] = []
    with gradwatch.track(optimizer, model, rules=(), sinks=[Memory()]) as watch:

        def read(_: int) -> None:
            if rank == 0:
                watch.flush()
                newest.append(max((record.step for record in watch.history), default=0))

        train(model, optimizer, rank, after_step=read)
    return {"records": [(r.step, r.norm_before) for r in watch.history], "newest": newest}


def each_third(rank: int, world: int) -> list[tuple[int, Any]]:
    model = sharded()
    optimizer = optimizer_of(model.parameters())
    modules = {"all of it": model}
    with gradwatch.track(optimizer, modules, every=3) as watch:
        train(model, optimizer, rank)
    return [(record.step, norms_in(record)) for record in watch.history]


def two_optimizers(rank: int, world: int) -> dict[str, Any]:
    """Their steps are counted together: one sum for 16 of them."""
    actor, critic = sharded(), sharded()
    optimizers = {"actor": optimizer_of(actor.parameters()), "critic": optimizer_of(critic.parameters())}
    with Sent() as sent, gradwatch.track(optimizers) as watch:
        for step in range(26):
            for name, model in (("critic", critic), ("actor", actor)):
                if name == "critic" or step % 2:
                    optimizers[name].zero_grad()
                    loss_of(model, *batch(step, rank)).backward()
                    optimizers[name].step()
    return {
        "bytes": sent.bytes,
        "parameters": len(list(actor.parameters())),
        "steps": [(record.optimizer, record.step) for record in watch.history],
    }


def bare_and_tracked(rank: int, world: int) -> dict[str, bool]:
    """Training is not changed, and nothing is sent over its process group."""
    ends = []
    for track in (False, True):
        model = sharded()
        optimizer = optimizer_of(model.parameters())
        with Sent() as sent:
            if track:
                with gradwatch.track(optimizer, model):
                    train(model, optimizer, rank)
            else:
                train(model, optimizer, rank)
        state = [s["momentum_buffer"] for s in optimizer.state.values()]
        parts = [t.to_local() for p in model.parameters() for t in (p, p.grad)] + [s.to_local() for s in state]
        ends.append((parts, torch.get_rng_state(), sent.of_training))
    (bare, bare_random, bare_sent), (parts, random, of_training) = ends
    return {
        "parameters": all(torch.equal(a, b) for a, b in zip(bare, parts, strict=True)),
        "random state": torch.equal(bare_random, random),
        "collectives of the training": bare_sent == of_training,
    }


def without_hooks(rank: int, world: int) -> Any:
    """As where parameters are kept in the memory of the CPU while training runs elsewhere."""
    usual, Shards._is_offloaded = Shards._is_offloaded, lambda *_: True
    try:
        model = sharded()
        return tracked(model, model, rank, clipping=halve)
    finally:
        Shards._is_offloaded = usual


def scaled(rank: int, world: int) -> dict[str, Any]:
    """An Inf in the gradient of one rank: none of them steps."""
    model = flattened(use_orig_params=True)
    optimizer = optimizer_of(model.parameters())
    scaler = ShardedGradScaler(device="cpu", init_scale=1024.0)
    with gradwatch.track(optimizer, {"all of it": model.module}, rules=()) as watch:
        for step in range(3):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, *batch(step, rank))).backward()
            if step == 1 and rank == 0:
                next(p for p in model.parameters() if p.grad is not None and p.grad.numel()).grad.fill_(torch.inf)
            scaler.step(optimizer)
            scaler.update()
    return {
        "records": [(r.step, r.skipped, r.loss_scale, r.norm_before, r.norm_after) for r in watch.history],
        "errors": watch.health().internal_errors,
    }


def guarded(rank: int, world: int) -> dict[str, Any]:
    """A NaN on the last rank: no rank takes that step, or every one is stopped."""
    bad = rank == world - 1
    model, optimizer = by_hand(world)
    with gradwatch.track(optimizer, model, rules=(), guard="skip") as watch:
        for value in (1.0, float("nan") if bad else 1.0, 1.0):
            step_by_hand(model, optimizer, value)
    stopped = ""
    other, other_optimizer = by_hand(world)
    try:
        with gradwatch.track(other_optimizer, other, rules=(), guard="raise"):
            step_by_hand(other, other_optimizer, float("nan") if bad else 1.0)
    except NonFiniteGradientError as error:
        stopped = str(error)
    return {"skipped": [r.skipped for r in watch.history], "stopped": stopped}


def guarded_alone(rank: int, world: int) -> list[bool] | None:
    """Rank 0 is gone: the others go by what they see themselves, after they have waited for it once."""
    model, optimizer = by_hand(world)
    with Patience(1.0), gradwatch.track(optimizer, model, rules=(), guard="skip") as watch:
        for value in (1.0, float("nan"), 1.0)[: 1 if rank == 0 else 3]:
            step_by_hand(model, optimizer, value)
        if rank == 0:
            watch.close()
        parts = [parameter.to_local() for parameter in model.parameters()]
    return all(bool(torch.isfinite(part).all()) for part in parts)


def torchs_own_norm(rank: int, world: int) -> dict[str, Any]:
    """What a clip call returned is said in the record, as the whole where torch has it."""
    model = sharded()
    optimizer = optimizer_of(model.parameters())
    returned: list[Tensor] = []
    with gradwatch.track(optimizer, model) as watch:
        train(
            model,
            optimizer,
            rank,
            clipping=lambda p: returned.append(nn.utils.clip_grad_norm_(p, 0.1).full_tensor()),
            steps=2,
        )
    return {
        "returned": [float(norm) for norm in returned],
        "said": [r.clips[0].norm_returned for r in watch.history],
        "limits": [(r.max_norm, r.clipped, len(r.clips)) for r in watch.history],
    }


def flat_clip_method(rank: int, world: int) -> dict[str, Any]:
    from torch.distributed.fsdp import FullyShardedDataParallel

    method = vars(FullyShardedDataParallel)["clip_grad_norm_"]
    model = flattened(use_orig_params=True)
    optimizer = optimizer_of(model.parameters())
    returned: list[float] = []
    with gradwatch.track(optimizer, {"all of it": model.module}) as watch:
        clipping = lambda _: returned.append(float(model.clip_grad_norm_(max_norm=0.1)))  # noqa: E731
        train(model, optimizer, rank, clipping=clipping, steps=2)
    return {
        "returned": returned,
        "clips": [[(c.function, c.limit, c.norm_type, c.norm_returned) for c in r.clips] for r in watch.history],
        "norms": [r.norm_before for r in watch.history],
        "restored": vars(FullyShardedDataParallel)["clip_grad_norm_"] is method,
    }
