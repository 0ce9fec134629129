"""The devices that a test runs on, and the mode in which torch forbids to wait for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = pytest.param("cuda", marks=[pytest.mark.cuda, needs_cuda])
DEVICES = ["cpu", CUDA]
# torch says once in a process that this mode is young.
MODE_IS_YOUNG = "ignore:Synchronization debug mode"


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Whatever waits for the CUDA device raises; on the CPU there is nothing to wait for."""
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
