"""Every dtype, magnitude and layout by every way of measuring: within 1e-4 of a float32 ulp of the exact norm.

The exact norm is the root of a sum of exact squares that is rounded once (``tests.reference``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gradwatch
from gradwatch import global_norm
from gradwatch.measure import norms
from gradwatch.measure.norms import exact_norms, write_norms
from tests.measure import kernels
from tests.measure.kernels import norms_by
from tests.reference import exact_norm, float32_ulps

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
COMPLEX = [torch.complex64, torch.complex128]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]


# The ways of measuring.


def on_a_device(tensors: Sequence[Tensor]) -> list[float]:
    """The general way as it runs where nothing may be read, that is, with no ``coalesce``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, "on_host", lambda _: False)
        return [float(norm) for norm in exact_norms(tensors)]


def in_plain_torch(tensors: Sequence[Tensor]) -> list[float]:
    return [float(norm) for norm in exact_norms(tensors)]


def as_one_vector(tensors: Sequence[Tensor]) -> list[float]:
    return [float(global_norm(tensor)) for tensor in tensors]


def by_kernel(way: str, tensors: Sequence[Tensor]) -> list[float]:
    return norms_by(way, tensors)


KERNELS = [partial(by_kernel, way) for way in kernels.WAYS]
WAYS = [on_a_device, in_plain_torch, as_one_vector, *KERNELS]

# Of a float32 ulp.
MOST = 1e-4


def check(tensors: Sequence[Tensor], ways: Sequence[Callable[[Sequence[Tensor]], list[float]]] = WAYS) -> None:
    expected = [true_norm(tensor) for tensor in tensors]
    for way in ways:
        for measured, exact in zip(way(tensors), expected, strict=True):
            assert math.isfinite(measured)
            assert float32_ulps(measured, exact) <= MOST, (way, measured, exact)


def true_norm(tensor: Tensor) -> float:
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce().values()
    elif tensor.layout != torch.strided:
        tensor = tensor.values()
    if tensor.is_complex():
        return exact_norm([tensor.real, tensor.imag])
    return exact_norm([tensor.float() if tensor.element_size() == 1 else tensor])


# What is measured.


def draw(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    """Normal values of a wide dtype of the same kind."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.complex128 if dtype.is_complex else torch.float64)


def magnitudes(dtype: torch.dtype) -> dict[str, float]:
    """Factors that bring normal values to the ends of a dtype's range and to where squares leave it."""
    info = torch.finfo(dtype)
    found = {"subnormal": info.smallest_normal / 16, "smallest": info.smallest_normal * 8, "ordinary": 1.0}
    found["largest"] = info.max / 128
    for factor in (1e-160, 1e-140, 1e-30, 1e-23, 1e-19, 2e19, 1e30, 1e150, 1e160, 1e300):
        if info.smallest_normal <= factor <= info.max / 128:
            found[f"{factor:.0e}"] = factor
    return found


def sparse(values: Tensor, repeated: bool) -> Tensor:
    """A sparse tensor of four columns; with repeated indices each value is in two halves, apart from each other."""
    rows = values.reshape(-1, 4)
    if repeated:
        rows = torch.cat([rows / 2, rows.flip(0) / 2])
    index = torch.arange(len(rows)) % (values.numel() // 4)
    if repeated:
        index[len(rows) // 2 :] = index[: len(rows) // 2].flip(0)
    return torch.sparse_coo_tensor(index[None], rows, (values.numel(), 4), check_invariants=True)


def channels_last(values: Tensor) -> Tensor:
    return values.reshape(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)


def channels_last_3d(values: Tensor) -> Tensor:
    return values.reshape(1, 5, 3, 2, 4).contiguous(memory_format=torch.channels_last_3d)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda v: v,
    "transposed": lambda v: v.reshape(10, 12).t(),
    "every other": lambda v: torch.stack([v, v * 0], 1)[:, 0],
    "with an offset": lambda v: torch.cat([v * 0, v])[len(v) :].reshape(6, 20),
    "expanded": lambda v: v.reshape(40, 1, 3).expand(40, 7, 3),
    "one value, expanded": lambda v: v[:1].expand(120),
    "overlapping": lambda v: v.as_strided((50, 4), (2, 1)),
    "channels_last": channels_last,
    "channels_last_3d": channels_last_3d,
    "a column": lambda v: v.reshape(60, 2)[:, 1:],
    "0-dim": lambda v: v[7],
    "coalesced": lambda v: sparse(v, repeated=False).coalesce(),
    "not coalesced, no index twice": lambda v: sparse(v, repeated=False),
    "not coalesced": lambda v: sparse(v, repeated=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX], ids=str)
def test_every_dtype_magnitude_and_layout(dtype: torch.dtype, layout: str) -> None:
    scaled = [(draw(dtype, 120, seed=i) * factor).to(dtype) for i, factor in enumerate(magnitudes(dtype).values())]
    constant = [torch.full((120,), 0.1, dtype=torch.float64).mul(f).to(dtype) for f in magnitudes(dtype).values()]
    check([LAYOUTS[layout](values) for values in scaled + constant])


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_float8(dtype: torch.dtype) -> None:
    values = draw(dtype, 120).float()
    tensors = [(values * factor).to(dtype) for factor in (1.0, 16.0, 2.0**-6)]
    check([*tensors, tensors[0].reshape(10, 12).t(), tensors[0][::2]])


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX], ids=str)
def test_views_that_are_conjugated_or_negated_lazily(dtype: torch.dtype) -> None:
    pairs = draw(torch.complex128, 20).to(dtype if dtype.is_complex else torch.complex64)
    forms = [pairs.conj(), pairs.conj().reshape(4, 5).t(), torch._neg_view(pairs), pairs.conj().imag]
    assert forms[0].is_conj()
    assert forms[3].is_neg()
    check(forms)


@pytest.mark.parametrize("to_layout", ["to_sparse_csr", "to_sparse_csc", "to_sparse_bsr", "to_sparse_bsc"])
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
def test_compressed_sparse(to_layout: str) -> None:
    dense = draw(torch.float32, 8, 6).float() * (torch.arange(48).reshape(8, 6) % 3 == 0)
    blocks = [(2, 3)] if "bs" in to_layout else []
    compressed = getattr(dense, to_layout)(*blocks)
    check([compressed])
    assert true_norm(compressed) == exact_norm([dense])


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX], ids=str)
def test_nothing_is_zero(dtype: torch.dtype) -> None:
    no_index = torch.zeros(1, 0, dtype=torch.int64)
    nothing = [
        torch.zeros(0, dtype=dtype),
        torch.zeros(3, 0, 2, dtype=dtype),
        torch.zeros(5, 7, dtype=dtype),
        torch.zeros((), dtype=dtype),
        torch.zeros(5000, dtype=dtype),
        torch.sparse_coo_tensor(no_index, torch.zeros(0, 4, dtype=dtype), (3, 4), check_invariants=True),
    ]
    for way in WAYS:
        assert way(nothing) == [0.0] * len(nothing)
    assert float(global_norm(nothing)) == 0.0


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX], ids=str)
@pytest.mark.parametrize("size", [120, 6000])
def test_nan_and_inf_come_out_as_themselves(dtype: torch.dtype, size: int) -> None:
    def with_values(*values: float) -> Tensor:
        tensor = draw(dtype, size).to(dtype)
        tensor[: len(values)] = torch.tensor(values, dtype=dtype)
        return tensor

    # Half of a complex infinity is NaN, so that there is no splitting one.
    for layout in (
        lambda v: v,
        lambda v: sparse(v, repeated=not dtype.is_complex),
        lambda v: v.reshape(-1, 10).t(),
    ):
        tensors = [
            layout(with_values(*values)) for values in ((math.nan,), (-math.inf,), (math.inf, math.nan), ())
        ]
        for way in WAYS:
            nan, inf, both, finite = way(tensors)
            assert math.isnan(nan)
            assert inf == math.inf
            assert math.isnan(both)
            assert math.isfinite(finite)
        assert math.isnan(float(global_norm(tensors)))
        assert float(global_norm([tensors[1], tensors[3]])) == math.inf


# Sizes: about each border of the kernels, and beyond the pieces in which torch is handed a tensor.

SIZES = [1, 2, 4096, 4097, 8191, 8193, 32_767, 32_769, 100_003]


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX], ids=str)
def test_sizes_of_every_dtype(dtype: torch.dtype) -> None:
    tensors = [draw(dtype, size, seed=size).to(dtype) for size in SIZES]
    check(tensors, [in_plain_torch, *KERNELS])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["constant", "two values", "one large"])
def test_what_a_float32_sum_gets_wrong(kind: str, threads: int) -> None:
    """Larger than a piece, chosen so that a float32 accumulation is off by many ulps, and by the same sign."""
    size = norms.PIECE + 10_001
    values = {
        "constant": torch.full((size,), 0.1),
        # Squares that are rounded up by nearly half an ulp each.
        "two values": torch.tensor([1 + 2.0**-12, 1 + 3 * 2.0**-12]).repeat(size // 2),
        "one large": torch.cat([torch.tensor([4096.0]), torch.full((size,), 0.7)]),
    }[kind]
    exact = math.sqrt(sum(count * value * value for value, count in counted(values)))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        measured = [way([values])[0] for way in (in_plain_torch, *KERNELS)]
    finally:
        torch.set_num_threads(before)
    assert max(float32_ulps(m, exact) for m in measured) <= MOST
    in_float32 = math.sqrt(np.add.accumulate(values.square().numpy())[-1])
    assert float32_ulps(in_float32, exact) > 1.0


def counted(values: Tensor) -> list[tuple[float, int]]:
    distinct, counts = torch.unique(values.double(), return_counts=True)
    return list(zip(distinct.tolist(), counts.tolist(), strict=True))


@settings(max_examples=60)
@given(
    shapes=st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=1, max_size=6),
    copies=st.sampled_from([1, 2, 12]),
    dtypes=st.lists(st.sampled_from([*FLOATS, *COMPLEX]), min_size=6, max_size=6),
    exponent=st.integers(-60, 12),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_lists_of_any_shapes_dtypes_and_strides(
    shapes: list[list[int]],
    copies: int,
    dtypes: list[torch.dtype],
    exponent: int,
    seed: int,
    data: st.DataObject,
) -> None:
    tensors = []
    for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False)):
        whole = (draw(dtype, *[2 * n for n in shape], seed=seed + i) * 2.0**exponent).to(dtype)
        order = data.draw(st.permutations(range(len(shape))))
        steps = [slice(None, None, data.draw(st.integers(1, 2))) for _ in shape]
        tensors += [whole[tuple(steps)].permute(order)] * copies
    expected = [true_norm(tensor) for tensor in tensors]
    for measured in (on_a_device(tensors), *[way(tensors) for way in KERNELS]):
        assert max(map(float32_ulps, measured, expected)) <= MOST
    whole_norm = exact_norm([part for t in tensors for part in ((t.real, t.imag) if t.is_complex() else (t,))])
    assert float32_ulps(float(global_norm(tensors)), whole_norm) <= MOST


# Norms combined.


@pytest.mark.parametrize("factor", [5e-324, 1e-310, 1e-200, 1e-160, 1.0, 1e160, 1e200, 1e300])
def test_combined_at_any_magnitude(factor: float) -> None:
    parts = [torch.tensor([3 * factor], dtype=torch.float64), torch.tensor([4 * factor], dtype=torch.float64)]
    assert float32_ulps(float(global_norm(parts)), exact_norm(parts)) <= MOST
    beside_one = [*parts, torch.tensor([1.0])]
    assert float32_ulps(float(global_norm(beside_one)), exact_norm(beside_one)) <= MOST


def test_a_norm_beyond_float64_is_infinite_and_no_sooner() -> None:
    largest = torch.finfo(torch.float64).max
    assert in_plain_torch([torch.tensor([largest / 2, largest / 2], dtype=torch.float64)])[0] < math.inf
    assert in_plain_torch([torch.tensor([largest, largest], dtype=torch.float64)]) == [math.inf]


def test_float64_of_all_magnitudes_in_one_tensor() -> None:
    values = torch.tensor([10.0**e for e in range(-323, 301)], dtype=torch.float64)
    for end in range(1, len(values), 13):
        check([values[:end], values[:end].flip(0)])


def test_written_to_their_places() -> None:
    tensors = [torch.full((4,), float(i), dtype=dtype) for i, dtype in enumerate([*FLOATS, *COMPLEX])]
    out = torch.full((9,), -1.0, dtype=torch.float64)
    write_norms(out, torch.tensor([8, 0, 3, 4, 6, 2]), tensors)
    assert out.tolist() == [2.0, -1.0, 10.0, 4.0, 6.0, -1.0, 8.0, -1.0, 0.0]
    write_norms(out, torch.tensor([], dtype=torch.int64), [])
    assert out.sum() == 27.0


def test_duplicates_add_up_to_what_coalesce_makes_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    for dims, dense in (((5,), ()), ((3, 4), ()), ((2, 3, 2), (4,)), ((1,), (2, 3))):
        index = torch.stack([torch.randint(0, n, (40,), generator=generator) for n in dims])
        values = torch.randint(-8, 9, (40, *dense), generator=generator).float()
        tensor = torch.sparse_coo_tensor(index, values, (*dims, *dense), check_invariants=True)
        exact = exact_norm([tensor.to_dense()])
        assert [float32_ulps(way([tensor])[0], exact) for way in WAYS] == [0.0] * len(WAYS)


def test_a_sum_of_duplicates_is_rounded_as_the_gradient_is() -> None:
    # 2048 + 1 is a tie in float16 and becomes 2048; the sum of two float16 maxima is infinite there.
    for values, norm in (([2048.0, 1.0], 2048.0), ([65504.0, 65504.0], math.inf)):
        tensor = torch.sparse_coo_tensor(
            [[1, 1]], torch.tensor(values, dtype=torch.float16), (3,), check_invariants=True
        )
        assert [way([tensor]) for way in WAYS] == [[norm]] * len(WAYS)


# Through a tracker.


@pytest.mark.parametrize("layout", [*LAYOUTS, "empty"])
@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX], ids=str)
def test_through_track(dtype: torch.dtype, layout: str) -> None:
    factors = [factor for name, factor in magnitudes(dtype).items() if name in ("subnormal", "ordinary", "1e+30")]
    to_layout = LAYOUTS.get(layout, lambda v: v[:0])
    gradients = [to_layout((draw(dtype, 120, seed=i) * factor).to(dtype)) for i, factor in enumerate(factors)]
    plain = draw(torch.float32, 6000).float()
    parameters = [nn.Parameter(torch.zeros(g.shape, dtype=g.dtype)) for g in [*gradients, plain]]
    for parameter, gradient in zip(parameters, [*gradients, plain], strict=True):
        parameter.grad = gradient
    optimizer = torch.optim.SGD(parameters, lr=0.0, foreach=False)
    with gradwatch.track(optimizer, rules=[]) as watch:
        optimizer.step()
        record = watch["optimizer"]
    assert watch.health().internal_errors == 0
    for measured, gradient in zip(record.parameters.values(), [*gradients, plain], strict=True):
        assert float32_ulps(measured.norm_before, true_norm(gradient)) <= MOST
        assert float32_ulps(measured.norm_after, true_norm(gradient)) <= MOST


# A plan that is held to its form, and threads.


def test_odd_gradients_beside_others() -> None:
    plain = [draw(torch.float32, n).float() for n in (5, 5000, 70_000)]
    odd = [sparse(draw(torch.float32, 120).float(), repeated=True), draw(torch.complex64, 30).to(torch.complex64)]
    tensors = [plain[0], odd[0], plain[1], odd[1], plain[2]]
    # The number of values of a sparse gradient differs from step to step.
    fewer = [plain[0], sparse(draw(torch.float32, 120).float(), repeated=False), *tensors[2:]]
    for step in (tensors, fewer, tensors):
        check(step, KERNELS)
