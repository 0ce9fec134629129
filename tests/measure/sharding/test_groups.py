"""What a group of many ranks costs to set up, with ranks that are threads of this process."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import torch
import torch.distributed as dist

from gradwatch.measure.sharding.groups import new_group
from gradwatch.measure.sharding.store import agree
from tests.machine import open_sockets

needs_lazy_connections = pytest.mark.skipif(
    "lazy_init" not in dist.ProcessGroupGloo.create_default_device.__doc__,
    reason="this torch connects each rank to every other one",
)


class Counting(dist.Store):
    """Counts what one rank asks of the store."""

    def __init__(self, store: dist.Store) -> None:
        super().__init__()
        self._store = store
        self.asked: Counter[str] = Counter()

    def has_extended_api(self) -> bool:
        return False

    def set(self, key: str, value: Any) -> None:
        self.asked["set"] += 1
        self._store.set(key, value)

    def get(self, key: str) -> bytes:
        self.asked["get"] += 1
        return self._store.get(key)

    def wait(self, keys: list[str], *timeout: Any) -> None:
        self.asked["wait"] += 1
        self._store.wait(keys, *timeout)


def in_threads(members: int, of_one: Any) -> list[Any]:
    returned: list[Any] = [None] * members

    def run(place: int) -> None:
        returned[place] = of_one(place)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return returned


@needs_lazy_connections
@pytest.mark.parametrize("members", [4, 16])
def test_the_cost_of_a_rank_does_not_grow_with_their_number(members: int) -> None:
    before = open_sockets()
    common = dist.HashStore()
    stores = [Counting(common) for _ in range(members)]
    groups = in_threads(members, lambda place: new_group(stores[place], "group", place, members, 20.0))
    messages = [torch.full((3,), float(place)) for place in range(members)]
    works = [group.allreduce([message]) for group, message in zip(groups, messages, strict=True)]
    for work in works:
        work.wait()
    assert all(message.tolist() == [sum(range(members))] * 3 for message in messages)
    # One where it listens and two connections; its address, and those of its two neighbours.
    assert open_sockets() - before == 3 * members
    assert all(store.asked == {"set": 1, "get": 2, "wait": 2} for store in stores)


def test_many_agree() -> None:
    store = dist.HashStore()
    assert in_threads(16, lambda _: agree(store, "willing", 16, True, 20.0)) == [True] * 16
    assert in_threads(16, lambda place: agree(store, "not all", 16, place != 7, 20.0)) == [False] * 16
