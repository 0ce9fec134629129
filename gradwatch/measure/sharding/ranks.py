"""Sums over ranks that nobody waits for.

Everything here goes its own way, so that it can neither hold up nor upset the training's own communication: the
ranks agree through the key-value store that the process group was set up with, and the sums go over connections of
their own, on the CPU. A rank that is gone, or that does not track, costs the others the records of some steps and
nothing else. See docs/decisions/0011-ranks-add-up-beside-the-training.md.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gradwatch.blocks import FloatArray
from gradwatch.log import log
from gradwatch.measure.sharding.groups import all_reduce, new_group
from gradwatch.measure.sharding.store import agree, is_refused, next_meeting

__all__ = ["Peers", "Reduction"]


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
            key = next_meeting(store, f"{list(ranks)} {terms} {size} {questions}")
            if not agree(store, f"{key}/met", len(ranks), True, cls.PATIENCE):
                _tell_alone(ranks, f"not all of them have begun to track the same within {cls.PATIENCE:.0f} s")
                return None
            peers = cls._connected(store, key, ranks, size, 1 + questions)
            if agree(store, f"{key}/connected", len(ranks), peers is not None, cls.PATIENCE):
                return peers
            _tell_alone(ranks, "no connection to all of them could be made; see GLOO_SOCKET_IFNAME")
            if peers is not None:
                peers.close(together=False)
        except Exception as error:
            _tell_alone(ranks, f"the process group's store could not be used ({error})")
        return None

    @classmethod
    def _connected(cls, store: Any, key: str, ranks: Sequence[int], size: int, groups: int) -> Peers | None:
        """With connections to the others that have been tried by a first sum; None where they do not hold."""
        try:
            place = list(ranks).index(torch.distributed.get_rank())
            keys = [f"{key}/group {number}" for number in range(groups)]
            made = [new_group(store, one, place, len(ranks), cls.PATIENCE) for one in keys]
            peers = cls(made, store, key, len(ranks), size)
        except Exception:
            log.debug("gradwatch could not set up a gloo group", exc_info=True)
            return None
        first = peers.reduce(np.ones(1))
        total = first.total() if first.wait(cls.PATIENCE) else None
        if total is not None and total[0] == len(ranks):
            return peers
        peers.close(together=False)
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
        until = time.monotonic() + self.PATIENCE
        while not asked.wait(1.0) and time.monotonic() < until and not self.has_lost_one():
            pass
        total = asked.total() if asked.ready() else None
        self._answers = total is not None
        return here if total is None else bool(total[0] > 0)

    def _begun(self, group: Any, messages: Sequence[FloatArray], total: FloatArray) -> Reduction:
        try:
            reduction = Reduction([all_reduce(group, message) for message in messages], total)
        except RuntimeError:
            reduction = Reduction([], None)
        self._under_way = [one for one in self._under_way if not one.ready()] + [reduction]
        return reduction

    def leave(self, normally: bool) -> bool:
        """Whether all ranks leave normally, so that a last sum will not be waited for in vain.

        Waits for the others only where this rank leaves normally itself.
        """
        return self._agreed("left", normally)

    def has_lost_one(self) -> bool:
        """Whether a rank is known to give no share any more; asks the store, and waits for no rank."""
        try:
            return is_refused(self._store, f"{self._key}/left")
        except RuntimeError:
            return True

    def close(self, together: bool) -> None:
        """Let go of the connections, where all ranks do; else keep them for ever.

        Gloo ends a group only when nothing is under way any more, and may not end it at all where another rank
        has closed a connection with something under way: whoever drops the last reference may wait for ever, and
        so may the interpreter at its end. Such a group is never dropped.

        Args:
            together: every rank has all of its sums, or will say in a moment that it has not.
        """
        groups, self._groups = self._groups, []
        unfinished = [one.let_go() for one in self._under_way if not one.ready()]
        self._under_way = []
        if not self._agreed("closed", together and not unfinished):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object([groups, unfinished]))

    def _agreed(self, on: str, willing: bool) -> bool:
        try:
            return agree(self._store, f"{self._key}/{on}", self.members, willing, self.PATIENCE)
        except RuntimeError:
            return False


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


def _tell_alone(ranks: Sequence[int], why: str) -> None:
    log.warning(
        "gradwatch does not add up with the ranks %s: %s. Norms of sharded parameters are those of this rank's "
        "shards alone.",
        _in_words(ranks),
        why,
    )


def _in_words(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks)) if len(ranks) <= 8 else f"{ranks[0]} ... {ranks[-1]} ({len(ranks)} of them)"
