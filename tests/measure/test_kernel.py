"""The kernel: what it says of gradients and their norms, the same in native code and in torch."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwatch.measure import kernel, pure
from gradwatch.measure.kernel import ABSENT, CHANGED, NEW, ONCE, SAME
from gradwatch.measure.parameters import addresses
from tests.measure.kernels import KERNELS, WAYS, native, norms_by
from tests.reference import exact_norm

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]


class Named(Tensor):
    """A subclass, as others make them."""


@pytest.fixture(params=KERNELS, ids=lambda way: way.__name__.rpartition(".")[2])
def way(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.param
    return found


# What has changed.


class Looker:
    """Looks at parameters again and again, and keeps what it saw."""

    def __init__(self, way: ModuleType, *parameters: Tensor | None) -> None:
        self._way = way
        self.parameters = list(parameters)
        self.state = bytearray(np.array([[0], [-1]]).repeat(len(parameters), 1).astype(np.int64).tobytes())
        self.gradients: list[Tensor | None] = []

    def codes(self) -> list[int]:
        self.gradients, codes = self._way.look(self.parameters, self.state)
        return list(codes)


def parameter(size: int = 3) -> nn.Parameter:
    return nn.Parameter(torch.zeros(size))


def test_a_gradient_from_its_coming_to_its_going(way: ModuleType) -> None:
    p = parameter()
    looker = Looker(way, p)
    assert looker.codes() == [ABSENT]
    p.grad = torch.ones(3)
    assert looker.codes() == [NEW]
    assert looker.gradients[0] is p.grad
    assert looker.codes() == [SAME]
    p.grad += 1
    assert looker.codes() == [ONCE]
    p.grad.mul_(2).mul_(3)
    assert looker.codes() == [CHANGED]
    p.grad.data.mul_(2)
    assert looker.codes() == [SAME]
    p.grad = p.grad.clone()
    assert looker.codes() == [NEW]
    p.grad = None
    assert looker.codes() == [ABSENT]
    assert looker.gradients == [None]
    assert looker.codes() == [ABSENT]


def test_each_of_many_by_itself(way: ModuleType) -> None:
    ps = [parameter() for _ in range(4)]
    looker = Looker(way, ps[0], None, *ps[1:])
    for p in ps[:3]:
        p.grad = torch.ones(3)
    assert looker.codes() == [NEW, ABSENT, NEW, NEW, ABSENT]
    ps[1].grad.zero_()
    ps[2].grad = torch.ones(3)
    ps[3].grad = torch.ones(3)
    assert looker.codes() == [SAME, ABSENT, ONCE, NEW, NEW]
    ids, versions = np.frombuffer(looker.state, dtype=np.int64).reshape(2, -1).tolist()
    assert ids == [0 if g is None else id(g) for g in looker.gradients]
    assert versions == [-1 if g is None else g._version for g in looker.gradients]


def test_of_an_inference_tensor_no_version_is_the_one_before(way: ModuleType) -> None:
    with torch.inference_mode():
        made_in_inference = torch.ones(3)
    p = parameter()
    p.grad = made_in_inference
    looker = Looker(way, p)
    assert [looker.codes() for _ in range(3)] == [[NEW], [CHANGED], [CHANGED]]


def test_whether_a_few_are_unchanged(way: ModuleType) -> None:
    ps = [parameter() for _ in range(4)]
    looker = Looker(way, *ps[:2], None, *ps[2:])
    for p in ps[:3]:
        p.grad = torch.ones(3)
    looker.codes()
    before = bytes(looker.state)

    def unchanged(*places: int) -> bool:
        same: bool = way.unchanged(looker.parameters, looker.state, places)
        return same

    assert unchanged()
    assert unchanged(0, 1, 2, 3, 4)
    ps[0].grad.add_(1)
    ps[1].grad = torch.ones(3)
    ps[3].grad = torch.ones(3)
    assert [unchanged(place) for place in range(5)] == [False, False, True, True, False]
    assert not unchanged(2, 3, 4)
    ps[2].grad = None
    assert not unchanged(3)
    assert looker.state == before
    with pytest.raises(IndexError):
        unchanged(5)


def test_what_was_made_in_inference_mode_counts_as_changed(way: ModuleType) -> None:
    p = parameter()
    with torch.inference_mode():
        p.grad = torch.ones(3)
    looker = Looker(way, p)
    looker.codes()
    assert not way.unchanged(looker.parameters, looker.state, (0,))


def test_unchanged_keeps_nothing_alive(way: ModuleType) -> None:
    p = parameter()
    p.grad = gradient = torch.ones(3)
    looker = Looker(way, p)
    looker.codes()
    looker.gradients = []
    before = sys.getrefcount(gradient), sys.getrefcount(p)
    for _ in range(10):
        assert way.unchanged(looker.parameters, looker.state, (0,))
    assert (sys.getrefcount(gradient), sys.getrefcount(p)) == before


# Whether an optimizer holds what it held.


def test_whether_groups_hold_what_they_held(way: ModuleType) -> None:
    one, two, three = (parameter() for _ in range(3))
    held = addresses([one, two, three])
    for groups in (
        [[one, two, three]],
        [[one], [two, three]],
        [[], [one, two], (three,)],
        [iter((one, two, three))],
    ):
        assert way.holds([{"params": params} for params in groups], held), groups
    for groups in ([], [[one, two]], [[one, three, two]], [[one, two, three], [one]], [[one, two], [parameter()]]):
        assert not way.holds([{"params": params} for params in groups], held), groups
    assert way.holds(({"params": [one, two, three]},), held)
    assert way.holds([], b"")
    assert way.holds([{"params": []}], b"")
    with pytest.raises(KeyError):
        way.holds([{}], held)
    before = [sys.getrefcount(p) for p in (one, two, three)]
    for _ in range(10):
        way.holds([{"params": [one, two, three]}], held)
    assert [sys.getrefcount(p) for p in (one, two, three)] == before


def test_subclasses_have_versions(way: ModuleType) -> None:
    for gradient in (torch.ones(3).as_subclass(Named), nn.Parameter(torch.ones(3), requires_grad=False)):
        p = parameter()
        p.grad = gradient
        looker = Looker(way, p)
        assert looker.codes() == [NEW]
        gradient.zero_()
        assert looker.codes() == [ONCE]


def test_look_keeps_nothing_alive(way: ModuleType) -> None:
    p = parameter()
    p.grad = torch.ones(3)
    gradient = p.grad
    looker = Looker(way, p)
    before = sys.getrefcount(gradient), sys.getrefcount(p)
    for _ in range(10):
        looker.codes()
    looker.gradients = []
    assert (sys.getrefcount(gradient), sys.getrefcount(p)) == before


def test_look_refuses_a_state_that_is_too_short(way: ModuleType) -> None:
    p = parameter()
    p.grad = torch.ones(3)
    with pytest.raises((IndexError, ValueError)):
        way.look([p, p, p], bytearray(16))


def test_nothing_to_look_at(way: ModuleType) -> None:
    assert way.look([], bytearray()) == ([], b"")


# Norms.


def draw(dtype: torch.dtype, size: int = 120, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(size, generator=generator, dtype=wide).to(dtype)


def sparse(values: Tensor) -> Tensor:
    index = torch.arange(len(values))[None]
    return torch.sparse_coo_tensor(index, values, (len(values) + 5,), check_invariants=True)


READ: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda v: v,
    "shaped": lambda v: v.reshape(2, 3, 20),
    "with an offset": lambda v: torch.cat([v * 0, v])[len(v) - 7 :],
    "a misaligned start": lambda v: torch.cat([v[:1], v])[1:],
    "0-dim": lambda v: v[3],
    "empty": lambda v: v[:0],
    "a parameter": lambda v: nn.Parameter(v),
    "that requires a gradient": lambda v: v.clone().requires_grad_(),
    "part of a graph": lambda v: v.clone().requires_grad_() * 1,
}
LEFT: dict[str, Callable[[Tensor], Tensor]] = {
    "strided": lambda v: torch.stack([v, v], 1)[:, 0],
    "transposed": lambda v: v.reshape(10, 12).t(),
    "expanded": lambda v: v[:1].expand(50),
    "sparse": sparse,
}


@pytest.mark.parametrize("form", [*READ, *LEFT])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way_to_sum", WAYS)
def test_every_dtype_and_form(way_to_sum: str, dtype: torch.dtype, form: str) -> None:
    gradients = [(READ | LEFT)[form](draw(dtype, seed=seed)) for seed in range(3)]
    found = norms_by(way_to_sum, gradients)
    expected = [
        exact_norm(list(torch.view_as_real(g).unbind(-1)) if g.is_complex() else [g])
        for g in (g.detach().to_dense() for g in gradients)
    ]
    assert found == pytest.approx(expected, rel=1e-14, abs=0)


@native
@pytest.mark.parametrize("form", [*READ, *LEFT])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_read_natively(dtype: torch.dtype, form: str) -> None:
    out = bytearray(16)
    gradients = [None, (READ | LEFT)[form](draw(dtype))]
    _, _, left = kernel._native.norms(gradients, np.array([0, 1]).tobytes(), out)
    assert left == (None if form in READ else [1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("exponent", [-1060, -1000, -600, -470, -460, 0, 460, 470, 500, 1015])
@pytest.mark.parametrize("way_to_sum", WAYS)
def test_float64_beyond_the_range_of_squares(way_to_sum: str, exponent: int, dtype: torch.dtype) -> None:
    values = draw(dtype) * 2.0**exponent
    real = torch.view_as_real(values) if dtype.is_complex else values
    expected = exact_norm([real])
    assert norms_by(way_to_sum, [values, values[:0], values * 0]) == pytest.approx(
        [expected, 0.0, 0.0], rel=1e-14, abs=5e-324
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way_to_sum", WAYS)
def test_nan_and_inf(way_to_sum: str, dtype: torch.dtype) -> None:
    gradients = [draw(dtype) for _ in range(3)]
    gradients[0][5] = math.nan
    gradients[1][-1] = -math.inf
    nan, inf, finite = norms_by(way_to_sum, gradients)
    assert math.isnan(nan)
    assert inf == math.inf
    assert math.isfinite(finite)


@pytest.mark.parametrize("way_to_sum", WAYS)
def test_every_bit_pattern_of_the_half_precisions(way_to_sum: str) -> None:
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        values = patterns.view(dtype)
        for size in (1, 8, 64):
            # Each alone, and in the middle of zeros: by the remainder and by the vectors.
            rows = torch.zeros(len(values), size, dtype=dtype)
            rows[:, size // 2] = values
            chosen = list(rows[:: 1 if size == 8 else 97].unbind())
            expected = [float(row[size // 2].double().abs()) for row in chosen]
            assert norms_by(way_to_sum, chosen) == pytest.approx(expected, rel=1e-15, abs=0, nan_ok=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way_to_sum", WAYS)
def test_every_size_up_to_some_vectors(way_to_sum: str, dtype: torch.dtype) -> None:
    whole = draw(dtype, 400)
    tensors = [whole[start : start + size] for size in range(150) for start in (0, 1)]
    squares = torch.cat([torch.zeros(1, dtype=torch.float64), whole.to(torch.complex128).abs().square()])
    sums = [float(squares[1 + start : 1 + start + size].sum()) for size in range(150) for start in (0, 1)]
    assert norms_by(way_to_sum, tensors) == pytest.approx(np.sqrt(sums).tolist(), rel=1e-14, abs=0)


def test_what_is_written_counted_and_left(way: ModuleType) -> None:
    gradients = [torch.full((4,), 3.0), None, torch.zeros(7), torch.ones(4, device="meta"), torch.zeros(0)]
    gradients += [torch.full((9,), 1.0, dtype=torch.float64), torch.ones(1)]
    out = bytearray(np.full(8, -1.0).tobytes())
    total, zeros, left = way.norms(gradients, np.array([5, 0, 1, 2, 3, 4]).tobytes(), out)
    assert (total, zeros, left) == (45.0, 2, [3])
    assert np.frombuffer(out).tolist() == [6.0, 0.0, 0.0, -1.0, 0.0, 3.0, -1.0, -1.0]
    assert way.norms([], b"", bytearray()) == (0.0, 0, None)


@pytest.mark.parametrize("places", [[2], [2**40]])
def test_norms_refuses_a_place_that_is_not_there(way: ModuleType, places: list[int]) -> None:
    with pytest.raises(IndexError):
        way.norms([torch.ones(2)] * 2, np.array(places).tobytes(), bytearray(16))
    if places == [2]:
        with pytest.raises(IndexError):
            way.norms([torch.ones(2)] * 3, np.array(places).tobytes(), bytearray(16))


def test_only_what_is_not_on_the_host_is_handed_back() -> None:
    gradients = [
        torch.ones(4, 4).t()[:3],
        torch.ones(4).as_subclass(Named),
        sparse(torch.ones(9)),
        torch.ones(2, device="meta"),
        torch.ones(16).to(torch.float8_e4m3fn),
    ]
    out = bytearray(np.full(5, -1.0).tobytes())
    total, zeros, left = kernel.norms(gradients, np.arange(5).tobytes(), out)
    assert (total, zeros, left) == (pytest.approx(12 + 9 + 16), 0, [1, 3])
    assert np.frombuffer(out).tolist() == pytest.approx([math.sqrt(12), -1.0, 3.0, -1.0, 4.0])


def test_norms_keeps_nothing_alive(way: ModuleType) -> None:
    gradients = [torch.ones(4), torch.ones(4, 4).t(), sparse(torch.ones(3)), torch.ones(2, device="meta"), None]
    before = [sys.getrefcount(g) for g in gradients[:4]]
    for _ in range(10):
        way.norms(gradients, np.arange(5).tobytes(), bytearray(40))
    assert [sys.getrefcount(g) for g in gradients[:4]] == before


def freed_and_a_part_of_it() -> list[Tensor]:
    whole = torch.ones(1000)
    part = whole[100:]
    whole.untyped_storage().resize_(0)
    return [whole, part]


def test_a_storage_freed_under_its_tensor_is_not_read() -> None:
    for measure in (pure.norms, kernel.norms):
        for gradient in freed_and_a_part_of_it():
            out = bytearray(16)
            total, zeros, left = measure([gradient, torch.ones(1)], np.arange(2).tobytes(), out)
            assert math.isnan(total)
            assert (zeros, left) == (0, None)
            assert np.frombuffer(out).tolist() == pytest.approx([math.nan, 1.0], nan_ok=True)


@native
def test_a_storage_freed_under_its_tensor_is_left() -> None:
    for gradient in freed_and_a_part_of_it():
        assert kernel._native.norms([gradient], bytes(8), bytearray(8)) == (0.0, 0, [0])


# Which one runs.


def kind_in(**environment: str) -> str:
    asked = "from gradwatch.measure import kernel; print(kernel.KIND)"
    ran = subprocess.run(
        [sys.executable, "-c", asked], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


def test_the_environment_turns_it_off() -> None:
    assert kind_in(GRADWATCH_PURE="1") == "pure torch"
    built = importlib.util.find_spec("gradwatch.measure._native") is not None
    assert kind_in(GRADWATCH_PURE="").startswith("native" if built else "pure torch")


def test_without_the_extension_it_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradwatch.measure._native", None)
    monkeypatch.delattr("gradwatch.measure._native", raising=False)
    assert kernel._import_native() is None


@native
def test_native_equals_torch() -> None:
    gradients = [draw(dtype, size, seed=size) for dtype in DTYPES for size in (1, 100, 5000, 300_001)]
    places = np.arange(len(gradients)).tobytes()
    one, other = bytearray(8 * len(gradients)), bytearray(8 * len(gradients))
    total, *counts = kernel._native.norms(gradients, places, one)
    assert (total, *counts) == (pytest.approx(pure.norms(gradients, places, other)[0], rel=1e-13), 0, None)
    assert np.frombuffer(one) == pytest.approx(np.frombuffer(other), rel=1e-13, abs=0)
