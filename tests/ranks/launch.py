"""Run functions in several processes that form one process group, and see what each of them returned."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[2]

# Torch 2.6 cannot run fully_shard on a CPU, and there an in-place product leaves a partial gradient as it was.
RECENT = hasattr(torch.cpu.Stream, "record_event")

needs_recent = pytest.mark.skipif(not RECENT, reason="torch 2.6 itself cannot do this on a CPU")


class RanksFailedError(AssertionError):
    """A process ended otherwise than expected, or not in time; says what each of them printed."""


def run_ranks(world: int, functions: Sequence[str], seconds: float = 60.0) -> dict[str, list[Any]]:
    """Run functions one after the other in each of ``world`` processes.

    Args:
        world: number of processes.
        functions: ``"module:name"``, each called with the rank and the number of processes.
        seconds: after so long all processes are killed.

    Returns:
        For each function what it returned, by rank; an exception as its traceback, a string.

    Raises:
        RanksFailedError: a process did not end by itself, or not with 0.
    """
    # The store's server lives here: it outlasts any process, and no port has to be guessed.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, f"output{rank}") for rank in range(world)]
        results = [Path(folder, f"result{rank}") for rank in range(world)]
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.ranks.process"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        processes = []
        for rank in range(world):
            with outputs[rank].open("w") as output:
                arguments = [str(rank), str(world), str(store.port), str(results[rank]), *functions]
                processes.append(
                    subprocess.Popen(
                        [*command, *arguments], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
                    )
                )
        codes = _wait(processes, seconds)
        if any(codes):
            told = "\n".join(f"--- rank {r}, exit {codes[r]}\n{outputs[r].read_text()}" for r in range(world))
            raise RanksFailedError(f"after at most {seconds} s:\n{told}")
        by_rank = [pickle.loads(result.read_bytes()) for result in results]
    return {function: [results[function] for results in by_rank] for function in functions}


def _wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> list[int | None]:
    until = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        time.sleep(0.02)
    codes = [process.poll() for process in processes]
    for process in processes:
        if process.poll() is None:
            # The fault handler prints where each thread is.
            process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)
            process.kill()
        process.wait()
    return ["killed" if code is None else code for code in codes]
