"""Numbers of tensors of every sort."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gradwatch.diagnose.look.numbers import Extent, extent, largest, tensors_in

KINDS = {
    "float32": (torch.tensor([1.0, -3.0]), 3.0),
    "float16": (torch.tensor([1.0, -3.0]).half(), 3.0),
    "bfloat16": (torch.tensor([1.0, -3.0]).bfloat16(), 3.0),
    "float8": (torch.tensor([1.0, -3.0]).to(torch.float8_e4m3fn), 3.0),
    "complex": (torch.tensor([1 + 2j, -3j]), 3.0),
    "sparse": (torch.tensor([[0.0, -3.0]]).to_sparse(), 3.0),
    "uncoalesced": (torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,), check_invariants=True), 3.0),
    "0-dim": (torch.tensor(-3.0), 3.0),
    "empty": (torch.empty(0, 3), 0.0),
    "subnormal": (torch.tensor(1e-45), torch.tensor(1e-45).item()),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", KINDS)
def test_largest(name: str) -> None:
    tensor, wanted = KINDS[name]
    assert largest(tensor) == wanted


def test_largest_of_what_is_not_there_or_not_finite() -> None:
    assert largest(None) == 0.0
    assert math.isnan(largest(torch.tensor([1.0, math.nan, math.inf])))
    assert largest(torch.tensor([1.0, -math.inf])) == math.inf


def test_extent() -> None:
    assert extent(torch.tensor([-2.0, 0.5, 3.0])) == Extent(-2.0, 3.0, 0.5)
    assert extent(torch.empty(0)) == Extent(0.0, 0.0, 0.0)
    assert not extent(torch.tensor([0.0, math.nan])).finite
    assert not extent(torch.tensor([0.0, math.inf])).finite


def test_tensors_in_arguments_of_every_shape() -> None:
    @dataclass
    class Output:
        logits: Tensor
        labels: Tensor | None = None

    first, second, third = torch.ones(1), torch.ones(2), torch.ones(3)
    something = ((first, 1), {"x": [second], "ids": torch.ones(2, dtype=torch.long)}, Output(third), "text")
    assert [tensor.numel() for tensor in tensors_in(something)] == [1, 2, 3]
