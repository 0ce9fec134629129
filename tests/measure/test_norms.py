"""Norms against ``math.fsum`` over the squares, which is exact for float32 inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradwatch import global_norm
from gradwatch.measure.norms import PIECE, exact_norms
from tests.measure.kernels import norms_by


def reference(*tensors: Tensor) -> float:
    """The norm of all elements, with every square and the sum free of rounding for float32 inputs."""
    return math.sqrt(math.fsum(x * x for t in tensors for x in t.double().reshape(-1).tolist()))


def ulp(norm: float) -> float:
    return float(np.spacing(np.float32(norm)))


def ways(tensors: list[Tensor]) -> list[list[float]]:
    return [norms_by("torch", tensors), [float(norm) for norm in exact_norms(tensors)]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=4),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 2**32),
    constant=st.booleans(),
)
def test_norms_are_within_one_float32_ulp(sizes: list[int], exponent: int, seed: int, constant: bool) -> None:
    drawn = [torch.full((n,), 0.1) if constant else normal(n, seed=seed + i) for i, n in enumerate(sizes)]
    tensors = [t * 10.0**exponent for t in drawn]
    expected = [reference(t) for t in tensors]
    for norms in ways(tensors):
        for norm, exact in zip(norms, expected, strict=True):
            assert abs(norm - exact) <= ulp(exact)
    whole = reference(*tensors)
    assert abs(float(global_norm(tensors)) - whole) <= ulp(whole)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 2**23 - 1), min_size=1, max_size=200))
def test_subnormal_gradients_are_not_zero(bits: list[int]) -> None:
    tensor = torch.tensor(np.array(bits, dtype=np.int32).view(np.float32))
    expected = reference(tensor)
    assert 0.0 < expected < 1e-36
    for norms in ways([tensor]):
        assert norms[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("magnitude", [1e-23, 1e20, 1e30, 3e38])
def test_magnitudes_whose_squares_leave_float32(magnitude: float) -> None:
    tensor = torch.full((1000,), magnitude)
    for norms in ways([tensor]):
        assert norms[0] == pytest.approx(reference(tensor), rel=1e-12)
    assert math.isfinite(float(global_norm([tensor])))


@pytest.mark.parametrize("value", [0.1, 1e-3, 7.0])
def test_a_large_constant_tensor_does_not_drift(value: float) -> None:
    tensor = torch.full((3_000_000,), value)
    expected = abs(float(tensor[0])) * math.sqrt(tensor.numel())
    for norms in ways([tensor]):
        assert abs(norms[0] - expected) <= ulp(expected)
    # float32 accumulation is what the above guards against.
    assert abs(float(torch.linalg.vector_norm(tensor)) - expected) > ulp(expected)


@pytest.mark.parametrize("size", [4096, 4097, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 7])
def test_sizes_about_each_border(size: int) -> None:
    tensor = normal(size)
    expected = math.sqrt(float(tensor.double().numpy() @ tensor.double().numpy()))
    for norms in ways([tensor]):
        assert norms[0] == pytest.approx(expected, rel=1e-12)


def test_the_last_element_of_a_tensor_larger_than_a_piece_counts() -> None:
    tensor = torch.zeros(2 * PIECE + 7)
    tensor[0], tensor[PIECE], tensor[-1] = 2.0, 3.0, 6.0
    for norms in ways([tensor]):
        assert norms == [7.0]


def test_order_survives_mixed_sizes_and_empty_tensors() -> None:
    sizes = [3, 0, 20_000, 1, 4096, 0, PIECE + 1, 5]
    tensors = [torch.full((n,), float(i + 1)) for i, n in enumerate(sizes)]
    expected = [(i + 1) * math.sqrt(n) for i, n in enumerate(sizes)]
    for norms in ways(tensors):
        assert norms == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 3, 5, 7), (1, 1, 300, 200), (8, 64, 33, 33)])
def test_shapes(shape: tuple[int, ...]) -> None:
    tensor = normal(*shape) if shape else torch.tensor(-3.0)
    for norms in ways([tensor]):
        assert norms[0] == pytest.approx(float(torch.linalg.vector_norm(tensor.double())), rel=1e-12)


@pytest.mark.parametrize("size", [4, 40])
def test_gradients_that_are_not_contiguous(size: int) -> None:
    whole = normal(2, size, size, 64)
    forms = [
        whole.contiguous(memory_format=torch.channels_last),
        whole[:, ::2],
        whole.transpose(1, 3),
        whole[..., 0],
        whole[:1].expand(3, -1, -1, -1),
    ]
    expected = [float(torch.linalg.vector_norm(form.contiguous().double())) for form in forms]
    for norms in ways(forms):
        assert norms == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [10, 20_000, PIECE + 5])
@pytest.mark.parametrize("magnitude", [1e200, 1e160, 1e-160, 1e-200, 1e-310])
def test_float64_beyond_its_own_squares(size: int, magnitude: float) -> None:
    tensor = torch.full((size,), magnitude, dtype=torch.float64)
    expected = magnitude * math.sqrt(size)
    for norms in ways([tensor]):
        assert norms[0] == pytest.approx(expected, rel=1e-11)
    assert float(global_norm([tensor, tensor])) == pytest.approx(expected * math.sqrt(2), rel=1e-11)


def test_float64_out_of_range_beside_others() -> None:
    tensors = [
        torch.full((4,), 1e200, dtype=torch.float64),
        torch.full((4,), 3.0),
        torch.zeros(4, dtype=torch.float64),
    ]
    for norms in ways(tensors):
        assert norms == pytest.approx([2e200, 6.0, 0.0], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_rounds(dtype: torch.dtype) -> None:
    tensor = torch.full((30_000,), 30_000.0).to(dtype)
    for norms in ways([tensor, tensor[:10]]):
        assert norms == pytest.approx([reference(tensor), reference(tensor[:10])], rel=1e-12)


def test_complex_and_sparse_gradients() -> None:
    values = torch.tensor([3 + 4j, 0 + 12j])
    # The same index twice: its values add up to 6, and the norm is that of (6, 2).
    sparse = torch.sparse_coo_tensor([[0, 0, 2]], [4.0, 2.0, 2.0], (5,), check_invariants=True)
    assert [float(n) for n in exact_norms([values, values.conj(), sparse])] == pytest.approx([13.0, 13.0, 40**0.5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [10, 20_000])
def test_nan_and_inf_stay_what_they_are(size: int, dtype: torch.dtype) -> None:
    nan, inf, both = (torch.ones(size, dtype=dtype) for _ in range(3))
    nan[-1], inf[-1] = math.nan, -math.inf
    both[0], both[-1] = math.nan, math.inf
    for norms in ways([nan, inf, both, torch.ones(size, dtype=dtype)]):
        assert math.isnan(norms[0])
        assert norms[1] == math.inf
        assert math.isnan(norms[2])
        assert norms[3] == pytest.approx(math.sqrt(size))
    assert math.isnan(float(global_norm([nan, inf])))
    assert float(global_norm([inf, torch.ones(3)])) == math.inf


def test_parts_are_combined_by_squares_and_not_added() -> None:
    # Norms of 3, 5 and 8 make 9.8995 together; 16 would be their sum.
    parts = [torch.tensor([3.0]), torch.tensor([3.0, 4.0]), torch.tensor([0.0, 8.0])]
    for norms in ways(parts):
        assert norms == [3.0, 5.0, 8.0]
    assert float(global_norm(parts)) == pytest.approx(math.sqrt(98), rel=1e-15)


def test_a_tied_parameter_counts_once() -> None:
    one, other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    other.weight = one.weight
    one.weight.grad = torch.full((3, 3), 2.0)
    assert float(global_norm([one.weight, other.weight])) == 6.0
    assert float(global_norm(nn.Sequential(one, other))) == 6.0


def test_what_global_norm_takes() -> None:
    model = nn.Linear(2, 2)
    model.weight.grad = torch.full((2, 2), 1.5)
    norm = global_norm(model)
    assert (norm.dtype, norm.shape, norm.requires_grad) == (torch.float64, torch.Size([]), False)
    # The bias has no gradient and does not count; a parameter means its gradient and not its value.
    assert float(norm) == float(global_norm(model.parameters())) == float(global_norm(model.weight)) == 3.0
    assert float(global_norm(torch.tensor([3.0, 4.0]))) == 5.0
    assert float(global_norm(p for p in model.parameters())) == 3.0


def test_what_is_missing_is_left_out() -> None:
    assert float(global_norm([None, torch.tensor([3.0]), None, torch.tensor([4.0])])) == 5.0
    assert float(global_norm([nn.Parameter(torch.ones(3)), torch.tensor([2.0])])) == 2.0


def test_global_norm_of_nothing_is_zero() -> None:
    for nothing in ([], [None], nn.Identity(), nn.Linear(2, 2), torch.empty(0)):
        norm = global_norm(nothing)
        assert (float(norm), norm.dtype) == (0.0, torch.float64)


def test_measuring_changes_no_gradient() -> None:
    tensors = [normal(10), normal(30_000), normal(4, 4).double()]
    copies = [t.clone() for t in tensors]
    ways(tensors)
    global_norm(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))
