"""The machine that the tests run on: its threads, and what a process holds open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

__all__ = ["one_thread", "open_sockets"]


@contextmanager
def one_thread() -> Iterator[None]:
    """The same sums in the same order on each machine; and small models are no slower for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def open_sockets() -> int:
    """How many this process holds."""
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(entry.readlink()))
        except OSError:
            continue  # closed meanwhile, as the one that lists them is
    return sum(name.startswith("socket:") for name in names)
