"""The native kernel reads gradients that other threads free, replace, shrink and move meanwhile: it must not crash.

A program of its own, since a crash ends the process. It imports gradwatch and torch alone, so that ``make sanitize``
can run it with another build of the kernel.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gradwatch.measure import kernel

# Numbers of a gradient: read at once, and in several pieces.
SIZES = [100, 2 * (1 << 20), 3 * (1 << 20) + 5]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def gradient(size: int) -> Tensor:
    return torch.ones(size, dtype=random.choice(DTYPES))


# What other threads do to a gradient. One is left out against which torch has no defence: ``resize_`` to more than
# the storage holds, which frees the old memory without the lock of the interpreter.


def replace(gradients: list[Tensor | None], place: int) -> None:
    gradients[place] = None
    gradients[place] = gradient(random.choice(SIZES))


def swap_data(gradients: list[Tensor | None], place: int) -> None:
    found = gradients[place]
    if found is not None:
        found.data = gradient(random.choice(SIZES))


def shrink_and_grow(gradients: list[Tensor | None], place: int) -> None:
    found = gradients[place]
    if found is not None:
        held = found.untyped_storage().nbytes() // found.element_size()
        found.resize_(held // 3)
        found.resize_(held)


def free_and_allocate(gradients: list[Tensor | None], place: int) -> None:
    found = gradients[place]
    if found is not None:
        storage = found.untyped_storage()
        size = storage.nbytes()
        storage.resize_(0)
        storage.resize_(size)


def shorten_the_list(gradients: list[Tensor | None], place: int) -> None:
    gradients.append(gradients.pop())


def set_another(gradients: list[Tensor | None], place: int) -> None:
    found = gradients[place]
    if found is not None:
        found.set_(torch.ones(random.choice(SIZES), dtype=found.dtype))


DISTURBANCES: list[Callable[[list[Tensor | None], int], None]] = [
    replace,
    swap_data,
    shrink_and_grow,
    free_and_allocate,
    shorten_the_list,
]


def disturb(gradients: list[Tensor | None], over: threading.Event, kinds: list[Callable[..., None]]) -> None:
    while not over.is_set():
        # Two threads at the same gradient: torch refuses what does not fit.
        with contextlib.suppress(IndexError, RuntimeError):
            random.choice(kinds)(gradients, random.randrange(len(SIZES)))


def read(rounds: int, kinds: list[Callable[..., None]]) -> int:
    """Read so many times while others disturb; how many norms were had."""
    gradients: list[Tensor | None] = [gradient(size) for size in SIZES]
    over = threading.Event()
    threads = [threading.Thread(target=disturb, args=(gradients, over, kinds)) for _ in range(2)]
    for thread in threads:
        thread.start()
    had = 0
    out = bytearray(8 * len(SIZES))
    try:
        for round_ in range(rounds):
            # One by one: while the list is short, a place in it is refused.
            place = np.array([round_ % len(SIZES)])
            try:
                left = kernel._native.norms(gradients, place.tobytes(), out)[2]
            except IndexError:
                continue
            had += left is None
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return had


def main(rounds: int, with_set: bool) -> None:
    random.seed(0)
    torch.set_num_threads(1)
    # Turns come often, and are long enough to free something.
    sys.setswitchinterval(1e-4)
    for kind in [*DISTURBANCES, *([set_another] if with_set else [])]:
        print(kind.__name__, read(rounds, [kind]), "norms", flush=True)
    print("all", read(rounds, DISTURBANCES), "norms", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), with_set="set" in sys.argv)
