"""Trainings that are killed at any moment: what is left in their JSONL files.

Each is a fork of this process, which has loaded torch and begun no thread. ``python -m tests.soak.killed 200``.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch import nn

import gradwatch
from gradwatch.reporting import Reporting

BLOCK = Reporting.BLOCK


class Never:
    """A sink that never comes back."""

    def write(self, records: object, alerts: object) -> None:
        threading.Event().wait()

    def close(self) -> None:
        pass


class Steps:
    """The steps that a child has taken, in memory that outlives it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def taken(self) -> int:
        number: int = struct.unpack("<Q", self._memory[:8])[0]
        return number

    @taken.setter
    def taken(self, number: int) -> None:
        self._memory[:8] = struct.pack("<Q", number)


def train(path: Path, steps: Steps, in_step: bool, slow: bool) -> None:
    """Train for ever; ``in_step`` never gets more than a block ahead of what is written."""
    torch.manual_seed(1)
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    batch = torch.randn(8, 4)
    sinks = [*([Never()] if slow else []), gradwatch.sinks.Jsonl(path)]
    with gradwatch.track(optimizer, net, sinks=sinks):
        while True:
            optimizer.zero_grad()
            net(batch).square().mean().backward()
            optimizer.step()
            steps.taken += 1
            while in_step and steps.taken % BLOCK == 0 and len(written(path)[0]) < steps.taken - BLOCK:
                time.sleep(0.001)


def written(path: Path) -> tuple[list[int], list[str]]:
    """The steps in a file, and what in it is no JSON."""
    steps, torn = [], []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            torn.append(text)
        else:
            steps += [line["step"]] if line["kind"] == "step" else []
    return steps, torn


def killed(path: Path, after: int, pause: float, in_step: bool, slow: bool) -> dict[str, object]:
    """Kill a training that has taken so many steps, some seconds later, and look at what it has left."""
    steps = Steps()
    child = os.fork()
    if child == 0:
        try:
            train(path, steps, in_step, slow)
        finally:
            os._exit(1)
    until = time.monotonic() + 60.0
    while steps.taken < after and time.monotonic() < until:
        time.sleep(0.0005)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    taken = steps.taken
    found, torn = written(path)
    return {
        "killed": os.waitstatus_to_exitcode(status) == -signal.SIGKILL,
        "reached": taken >= after,
        "taken": taken,
        "missing": taken - len(found),
        "in a row": found == list(range(1, len(found) + 1)),
        "torn": len(torn),
        # Half a line is the last one, if any.
        "readable": not torn or (len(torn) == 1 and not path.read_text().endswith("\n")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--beside-a-slow-sink", action="store_true")
    parser.add_argument("--freely", action="store_true", help="train on whatever is written by then")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, found = random.Random(1), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.kills):
            path = Path(folder) / f"{number}.jsonl"
            after, pause = rng.randrange(1, 100), rng.random() * 0.01
            found.append(killed(path, after, pause, not options.freely, options.beside_a_slow_sink))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
