"""``python -m tests.harm.threads SECONDS``: four threads train, each with a tracker of its own; others read.

The loss of each is NaN now and then; one asks for diagnoses. Two more threads read all that can be read. It runs in
the process of whoever calls, so that a crash is the caller's.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import gradwatch

__all__ = ["run"]

TRAINERS, READERS = 4, 2


def run(seconds: float, report: Callable[[list[int]], object] | None = None) -> list[int]:
    """Train for so long.

    Returns:
        Steps of each trainer.

    Raises:
        BaseException: what one of the threads raised first.
    """
    until = time.monotonic() + seconds
    watches: list[gradwatch.Watch] = []
    steps = [0] * TRAINERS
    errors: list[BaseException] = []

    def train(number: int) -> None:
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        while time.monotonic() < until and not errors:
            with gradwatch.track(optimizer, model) as watch:
                watches.append(watch)
                for _ in range(200):
                    if time.monotonic() >= until or errors:
                        break
                    _step(model, optimizer, watch if steps[number] % 50 == 10 else None, steps[number] % 20 < 2)
                    steps[number] += 1
            watches.remove(watch)
            assert watch.health().internal_errors == 0, watch.health()

    def read() -> None:
        while time.monotonic() < until and not errors:
            for watch in list(watches):
                _ = watch.history, watch.alerts, watch.active, watch.last, watch.incidents, watch.health()
                _ = watch.state_dict()
            time.sleep(0.001)

    def guarded(work: Callable[..., object], *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(train, number)) for number in range(TRAINERS)]
    threads += [threading.Thread(target=guarded, args=(read,)) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(1.0, seconds / 10))
        if report is not None:
            report(steps)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return steps


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, asks: gradwatch.Watch | None, bad: bool) -> None:
    optimizer.zero_grad()
    if asks is None:
        (model(torch.randn(4, 8)).sum() * (math.nan if bad else 1.0)).backward()
    else:
        with asks.diagnose():
            model(torch.randn(4, 8)).sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not bad:
        optimizer.step()


if __name__ == "__main__":
    logging.getLogger("gradwatch").setLevel(logging.CRITICAL + 1)
    torch.set_num_threads(1)
    print("survived", run(float(sys.argv[1])))
