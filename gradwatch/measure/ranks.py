"""Sums over ranks that nobody waits for: how ranks agree to form them, and the sums themselves.

Everything here goes its own way, so that it can neither hold up nor upset the training's own communication: the
ranks agree through the key-value store that the process group was set up with, and the sums go over connections of
their own, on the CPU. A rank that is gone, or that does not track, costs the others the records of some steps and
nothing else.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch

from gradwatch.measure.norms import FloatArray

__all__ = ["Peers", "Reduction", "agree", "new_group"]

log = logging.getLogger("gradwatch")

# How often this process has met others about the same, by what it was about.
_meetings: dict[str, int] = {}
_meetings_lock = threading.Lock()


def agree(store: Any, key: str, members: int, willing: bool, patience: float) -> bool:
    """Whether all members are willing: the same answer on each of them, whoever comes late or not at all.

    The answer is one value in the store that is set once: to yes by the last member to come, to no by one that
    is unwilling or has waited for too long.

    Args:
        store: the key-value store that all members see.
        key: what it is about; to be used once.
        members: how many have to come.
        willing: whether this one is.
        patience: how long to wait for the others, in seconds.

    Raises:
        RuntimeError: the store has failed.
    """
    answer = f"{key}/answer"
    if not willing:
        store.compare_set(answer, "", "no")
    elif store.add(f"{key}/came", 1) == members:
        store.compare_set(answer, "", "yes")
    elif not _appears(store, answer, patience, members):
        store.compare_set(answer, "", "no")
    return bytes(store.get(answer)) == b"yes"


def _appears(store: Any, key: str, patience: float, members: int) -> bool:
    # Asked again and again rather than waited for inside the store, which others in this process use as well; by
    # all members together some 10,000 times a second at most.
    until, pause = time.monotonic() + patience, 0.001
    while not store.check([key]):
        if time.monotonic() > until:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.25 + members / 10_000)
    return True


class Peers:
    """The ranks over which sums are formed, met and ready; made by ``meet``."""

    # How long ranks wait for each other where they meet and where they leave, in seconds. In between nobody waits.
    PATIENCE = 60.0

    def __init__(self, groups: Sequence[Any], store: Any, key: str, members: int, size: int) -> None:
        # Each kind of sum has its own, so that the order between them need not be the same on every rank.
        self._groups = list(groups)
        self._answers = len(groups) > 1
        self._store = store
        self._key = key
        self.members = members
        self._size = size
        self._under_way: list[Reduction] = []

    @classmethod
    def meet(cls, ranks: Sequence[int], terms: str, size: int, *, questions: bool = False) -> Peers | None:
        """Find the other ranks; all of them have to come, with the same terms.

        Args:
            ranks: who has to come, this rank included.
            terms: what has to be the same on each of them.
            size: numbers that a message carries; a part of the terms, since gloo ends the process where two
                ranks give it messages of unequal length.
            questions: whether ``on_any`` will be asked.

        Returns:
            None where one does not come, or where no connection can be made; the log says so.
        """
        try:
            distributed: Any = torch.distributed
            store = distributed.distributed_c10d._get_default_store()
            key = _next_meeting(store, f"{list(ranks)} {terms} {size} {questions}")
            if not agree(store, f"{key}/met", len(ranks), True, cls.PATIENCE):
                _tell_alone(ranks, f"not all of them have begun to track the same within {cls.PATIENCE:.0f} s")
                return None
            peers = cls._connected(store, key, ranks, size, 1 + questions)
            if agree(store, f"{key}/connected", len(ranks), peers is not None, cls.PATIENCE):
                return peers
            _tell_alone(ranks, "no connection to all of them could be made; see GLOO_SOCKET_IFNAME")
            if peers is not None:
                peers.close()
        except Exception as error:
            _tell_alone(ranks, f"the process group's store could not be used ({error})")
        return None

    @classmethod
    def _connected(cls, store: Any, key: str, ranks: Sequence[int], size: int, groups: int) -> Peers | None:
        """With connections to the others that have been tried by a first sum; None where they do not hold."""
        try:
            place = list(ranks).index(torch.distributed.get_rank())
            made = [new_group(store, f"{key}/gloo{number}", place, len(ranks)) for number in range(groups)]
            peers = cls(made, store, key, len(ranks), size)
        except Exception:
            log.debug("gradwatch could not set up a gloo group", exc_info=True)
            return None
        first = peers.reduce(np.ones(1))
        total = first.total() if first.wait(cls.PATIENCE) else None
        if total is not None and total[0] == len(ranks):
            return peers
        peers.close()
        return None

    def reduce(self, block: FloatArray) -> Reduction:
        """Begin to add up what every rank gives; returns at once.

        Args:
            block: one dimension; as long on every rank.
        """
        count = -(-len(block) // self._size)
        padded = np.zeros(count * self._size)
        padded[: len(block)] = block
        return self._begun(self._groups[0], np.split(padded, count), padded[: len(block)])

    def on_any(self, here: bool) -> bool:
        """Whether something is so on any of the ranks, all of which have to ask; waits for their answers.

        Where one does not answer, it counts what is so here, now and from now on.
        """
        if not self._answers:
            return here
        answers = np.full(1, float(here))
        asked = self._begun(self._groups[1], [answers], answers)
        total = asked.total() if asked.wait(self.PATIENCE) else None
        self._answers = total is not None
        return here if total is None else bool(total[0] > 0)

    def _begun(self, group: Any, messages: Sequence[FloatArray], total: FloatArray) -> Reduction:
        try:
            reduction = Reduction([_all_reduce(group, message) for message in messages], total)
        except RuntimeError:
            reduction = Reduction([], None)
        self._under_way = [one for one in self._under_way if not one.ready()] + [reduction]
        return reduction

    def leave(self, normally: bool) -> bool:
        """Whether all ranks leave normally, so that a last sum will not be waited for in vain.

        Waits for the others only where this rank leaves normally itself.
        """
        try:
            return agree(self._store, f"{self._key}/leave", self.members, normally, self.PATIENCE)
        except RuntimeError:
            return False

    def close(self) -> None:
        """Let go of the connections; never waits for another rank."""
        waited_for = [reduction.let_go() for reduction in self._under_way if not reduction.ready()]
        held = [self._groups, waited_for]
        self._groups, self._under_way = [], []
        if waited_for:
            # Gloo ends a group only when nothing is under way any more: whoever drops the last reference may wait
            # for long, and so may the interpreter at its end. This one is never dropped.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


class Reduction:
    """A sum over ranks that is under way.

    Args:
        works: what torch tells of it.
        block: where the sum will be; None where it could not even begin.
    """

    def __init__(self, works: Sequence[Any], block: FloatArray | None) -> None:
        self._works = list(works)
        self._block = block

    def ready(self) -> bool:
        """Whether it is done, or has failed; asked, not waited for."""
        return all(work.is_completed() for work in self._works)

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether it is done, or has failed."""
        until = time.monotonic() + seconds
        while not self.ready():
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True

    def total(self) -> FloatArray | None:
        """The sum, once it is ready; None where it has failed, since a rank is gone."""
        try:
            for work in self._works:
                work.wait()
        except RuntimeError:
            self._block = None
        # What torch keeps of it keeps the connections open.
        self._works = []
        return self._block

    def let_go(self) -> list[Any]:
        """Give it up; what torch keeps of it."""
        works, self._works = self._works, []
        if works:
            self._block = None
        return works


def _next_meeting(store: Any, terms: str) -> str:
    """The key of the first meeting after the last one that this process was at, and that is not over.

    One that is over without this process was about a tracker that it does not have.
    """
    kind = hashlib.sha1(terms.encode()).hexdigest()
    with _meetings_lock:
        number = _meetings.get(kind, 0) + 1
        while store.check([f"gradwatch/{kind}/{number}/met/answer"]):
            number += 1
        _meetings[kind] = number
    return f"gradwatch/{kind}/{number}"


def _all_reduce(group: Any, message: FloatArray) -> Any:
    distributed: Any = torch.distributed
    options = distributed.AllreduceOptions()
    options.reduceOp = distributed.ReduceOp.SUM
    # A sum may be under way for as long as the slowest rank takes to get there.
    options.timeout = timedelta(days=1)
    return group.allreduce([torch.from_numpy(message)], options)


def new_group(store: Any, key: str, place: int, members: int) -> Any:
    """A gloo group that torch's own list of groups does not know and does not count.

    Args:
        store: where its members find each other.
        key: to be used once.
        place: of this rank among the members.
        members: how many there are.
    """
    distributed: Any = torch.distributed
    gloo = distributed.ProcessGroupGloo
    options = gloo._Options()
    options._devices = _devices(gloo)
    options._timeout = timedelta(seconds=Peers.PATIENCE)
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


def _tell_alone(ranks: Sequence[int], why: str) -> None:
    log.warning(
        "gradwatch does not add up with the ranks %s: %s. Norms of sharded parameters are those of this rank's "
        "shards alone.",
        _in_words(ranks),
        why,
    )


def _in_words(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks)) if len(ranks) <= 8 else f"{ranks[0]} ... {ranks[-1]} ({len(ranks)} of them)"
