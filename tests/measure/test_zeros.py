"""Which gradients are 0 everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gradwatch.measure import kernel
from gradwatch.measure.kernel import zeros
from tests.measure.kernels import native


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, float("nan"), float("inf")])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), "sparse"])
def test_a_gradient_is_zero_where_every_element_is(shape: Any, value: float) -> None:
    if shape == "sparse":
        gradient = torch.sparse_coo_tensor(
            torch.tensor([[1, 1]]), torch.tensor([0.0, value]), (3,), check_invariants=True
        )
    else:
        gradient = torch.zeros(shape)
        gradient.flatten()[-1:].fill_(value)
    assert zeros([gradient], (0,)) == ((0,) if value == 0.0 or gradient.numel() == 0 else ())


def test_only_those_that_are_asked_for_are_looked_at() -> None:
    zero = torch.zeros(2)
    assert zeros([zero, None, torch.ones(2), zero], (1, 2, 3)) == (3,)


def test_a_gradient_that_is_not_in_the_memory_of_the_cpu_is_not_read() -> None:
    with FakeTensorMode():
        fake = torch.zeros(2)
    assert zeros([fake, torch.zeros(2, device="meta")], (0, 1)) == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("at", [0, 1, 2, 3, 7, 300, (1 << 20) - 1, 1 << 20, (1 << 20) + 5])
def test_one_number_anywhere_is_found(at: int, dtype: torch.dtype) -> None:
    """Numbers are asked for one by one, then by more and more, and after a million of them by torch."""
    gradient = torch.full((at + 9,), -0.0, dtype=dtype)
    assert zeros([gradient], (0,)) == (0,)
    for value in (-1.0, torch.finfo(dtype).smallest_normal, float("nan")):
        gradient[at] = value
        assert zeros([gradient], (0,)) == ()


@native
def test_what_begins_with_zeros_is_not_left_to_torch() -> None:
    """Where a ReLU has switched a unit off, its row of a weight's gradient is 0."""
    gradient = torch.zeros(64, 400)
    gradient[3, 2] = 1e-3
    assert kernel._native.perhaps_zero([gradient, torch.zeros(9)], (0, 1)) == [1]
