"""What a step of ``watch.history`` holds in memory, as ``docs/cost.md`` states it."""

from __future__ import annotations

import gc
import re
import tracemalloc
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import gradwatch
from tests.bench.isolated import Isolated

BYTES_A_TENSOR = 20
BYTES_A_STEP = 1400
"""At most: for each parameter tensor and step of history, and for each step besides."""

SHORT, LONG = 64, 1088
"""A thousand steps apart: history is let go by blocks, so that either may hold up to fifteen steps more than it shows."""

FEW, MANY = 10, 60

COST = Path(__file__).parents[2] / "docs" / "cost.md"


class Scalars(nn.Module):
    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(tensors))


def held(tensors: int, history: int) -> Tensor:
    """Bytes that a watch of ``history`` records holds after ``LONG`` steps: unread, and when all have been read."""
    isolated = Isolated(Scalars(tensors))
    isolated.run(2)
    outside = torchs_bytes()
    tracemalloc.start()
    try:
        with gradwatch.track(isolated.optimizer, isolated.model, history=history) as watch:
            isolated.run(LONG)
            watch.flush()
            unread = all_bytes()
            assert len(watch.history) == history
            return torch.tensor([unread, all_bytes()]) - outside
    finally:
        tracemalloc.stop()


def all_bytes() -> int:
    """Python's and numpy's since tracing began, and torch's."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] + torchs_bytes()


def torchs_bytes() -> int:
    """Of all tensors: torch allocates them where Python does not see it."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    # Tensors of other tests may still be there that have no storage, or none that is real.
    real = [thing for thing in tensors if thing.layout is torch.strided and not isinstance(thing, FakeTensor)]
    storages = [thing.untyped_storage() for thing in real]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_a_step_of_history_holds_no_more_than_is_stated() -> None:
    held(FEW, SHORT)  # what is made at first use
    few, many = (held(tensors, LONG) - held(tensors, SHORT) for tensors in (FEW, MANY))
    for_a_tensor = (many - few) / (MANY - FEW) / (LONG - SHORT)
    for_a_step = few / (LONG - SHORT) - FEW * for_a_tensor
    print(f"unread, read: {for_a_tensor.tolist()} bytes a tensor and step, {for_a_step.tolist()} a step besides")
    assert for_a_tensor.max() <= BYTES_A_TENSOR
    assert for_a_step.max() <= BYTES_A_STEP


def test_the_page_states_these_bounds() -> None:
    stated = re.search(
        r"([\d,]+) bytes a tensor and step, ([\d,]+) bytes a step", COST.read_text(encoding="utf-8")
    )
    assert stated is not None
    assert [int(number.replace(",", "")) for number in stated.groups()] == [BYTES_A_TENSOR, BYTES_A_STEP]
