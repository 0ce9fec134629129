"""Whether data-parallel ranks consume equal gradients, asked of the store now and then; nobody is waited for.

Each rank leaves its norm of every 16th step in a ring of keys of its own, and reads what the rank before it has
left for the same step once it has had 16 steps' time.
See docs/decisions/0020-ranks-compare-through-the-store.md.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwatch.log import log
from gradwatch.measure.sharding.shares import Landed
from gradwatch.records import RankNorms

__all__ = ["Replicas", "replicas_of"]

_NOTHING = "-"


class Replicas:
    """Compares the norms of some optimizers with those of a neighbouring rank.

    Args:
        store: the key-value store of the process group.
        ranks: by optimizer, the ranks that hold copies of its parameters, this one among them.
        forms: by optimizer, what its parameters look like, the same on every rank.
    """

    EVERY = 16
    RING = 4

    def __init__(self, store: Any, ranks: Mapping[str, Sequence[int]], forms: Mapping[str, str]) -> None:
        self._store = store
        self._rank = torch.distributed.get_rank()
        self._ranks = dict(ranks)
        self._keys = {n: hashlib.sha1(f"{n} {ranks[n]} {forms[n]}".encode()).hexdigest() for n in ranks}
        # Norms that this rank has left and not yet compared, oldest first.
        self._left: dict[str, deque[tuple[int, float]]] = {name: deque(maxlen=self.RING - 1) for name in ranks}
        self._forget()

    def compare(self, steps: Sequence[Landed]) -> None:
        """Leave the norms of these steps, and note in their rows what a comparison of earlier ones has shown."""
        for step in steps:
            row, name = step.row, step.own.layout.optimizer
            if row.step % self.EVERY == 0 and name in self._ranks and self._store is not None:
                try:
                    step.row = row._replace(compared=self._compared(step, name))
                except RuntimeError:
                    log.debug("gradwatch compares no more with other ranks", exc_info=True)
                    self._store = None

    def _compared(self, step: Landed, name: str) -> RankNorms | None:
        found = self._neighbours(name, float(step.own.layout.rounding.max(initial=0.0)))
        norms = np.frombuffer(step.after)[step.row.facts.has_after]
        norm = float(np.sqrt(np.dot(norms, norms)))
        if not step.row.skipped and np.isfinite(norm):
            self._store.set(self._key(name, self._rank, step.row.step), f"{step.row.step} {norm!r}")
            self._left[name].append((step.row.step, norm))
        return found

    def _neighbours(self, name: str, rounding: float) -> RankNorms | None:
        """The newest step that both ranks have told of; older ones are forgotten."""
        ranks, left = self._ranks[name], self._left[name]
        other = ranks[ranks.index(self._rank) - 1]
        for step, norm in reversed(left):
            # Reads a value, or that there is none, in one go: ``get`` would wait for a key that is not there.
            told = self._store.compare_set(self._key(name, other, step), _NOTHING, _NOTHING).decode().split()
            if len(told) == 2 and int(told[0]) == step:
                while left and left[0][0] <= step:
                    left.popleft()
                return RankNorms(step, other, norm, float(told[1]), rounding)
        return None

    def _key(self, name: str, rank: int, step: int) -> str:
        return f"gradwatch/norms/{self._keys[name]}/{rank}/{step // self.EVERY % self.RING}"

    def _forget(self) -> None:
        for name in self._ranks:
            for place in range(self.RING):
                self._store.delete_key(self._key(name, self._rank, place * self.EVERY))

    def close(self) -> None:
        """Take back what this rank has left."""
        store, own = self._store, self._ranks
        if store is not None and own:
            with suppress(RuntimeError):
                self._forget()
        self._store = None


def replicas_of(held: Mapping[str, Sequence[Tensor]]) -> Replicas | None:
    """What compares the optimizers all of whose trained parameters DistributedDataParallel keeps equal.

    A wrapper with a communication hook may be meant to let ranks differ, as local SGD does, and is left alone.

    Returns:
        None where there is none, and where the store cannot be used.
    """
    module = sys.modules.get("torch.nn.parallel.distributed")
    distributed: Any = torch.distributed
    if module is None:
        return None
    kind: Any = module.DistributedDataParallel
    reduced: dict[int, tuple[int, ...]] = {}
    for wrapper in [thing for thing in gc.get_objects() if type(thing) is kind]:
        try:
            ranks = tuple(distributed.get_process_group_ranks(wrapper.process_group))
        except (KeyError, ValueError):
            continue  # a wrapper that has outlived its process group
        if len(ranks) > 1 and not wrapper._comm_hooks:
            ignored = wrapper.parameters_to_ignore
            reduced.update((id(p), ranks) for n, p in wrapper.module.named_parameters() if n not in ignored)
    several = {name: _ranks_of(parameters, reduced) for name, parameters in held.items()}
    found = {name: ranks for name, ranks in several.items() if ranks}
    if not found:
        return None
    forms = {name: str([tuple(p.shape) for p in held[name]]) for name in found}
    try:
        return Replicas(distributed.distributed_c10d._get_default_store(), found, forms)
    except (RuntimeError, NotImplementedError):
        log.debug("gradwatch cannot compare ranks", exc_info=True)
        return None


def _ranks_of(parameters: Sequence[Tensor], reduced: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    groups = {reduced.get(id(p), ()) for p in parameters if p.requires_grad}
    return groups.pop() if len(groups) == 1 else ()
