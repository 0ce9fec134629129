"""How gradients in CPU memory are measured where there is no kernel: few calls, no allocation, nothing remembered."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradwatch.measure import host, pure
from gradwatch.measure.host import LINE, SMALL
from gradwatch.measure.norms import PIECE
from tests.measure.kernels import norms_by
from tests.reference import exact_norm


class Named(Tensor):
    """A subclass, as others make them."""


def measured(tensors: Sequence[Tensor]) -> list[float]:
    return norms_by("torch", tensors)


def normal(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_small_ones_that_are_more_than_a_line() -> None:
    # No two of a size, so that lines end anywhere: at least three, and the last of them is not full.
    tensors = [normal(size, seed=size) * size for size in range(SMALL, SMALL - 12, -1)]
    tensors += [normal(size, seed=size) for size in (1, 7, SMALL, 2)]
    assert sum(tensor.numel() for tensor in tensors) > 3 * LINE
    assert measured(tensors) == pytest.approx([exact_norm([tensor]) for tensor in tensors], rel=1e-13)


@pytest.mark.parametrize("size", [1, SMALL, SMALL + 1, PIECE, PIECE + 1, 2 * PIECE])
def test_many_of_one_size(size: int) -> None:
    tensors = [torch.full((size,), float(i)) for i in range(8)]
    assert measured(tensors) == pytest.approx([i * math.sqrt(size) for i in range(8)], rel=1e-13)


def test_what_has_changed_but_for_its_size_is_measured_as_it_is_now() -> None:
    ones = torch.ones(24)
    forms: list[Callable[[Tensor], Tensor]] = [
        lambda t: t,
        lambda t: t.reshape(4, 6),
        lambda t: t.reshape(4, 6).t(),
        lambda t: t.bfloat16(),
        lambda t: t.double(),
        lambda t: torch.stack([t, t], 1)[:, 0],
        lambda t: t.requires_grad_() * 1,
        lambda t: t.reshape(4, 6).to_sparse(),
        lambda t: t.to(torch.complex64),
    ]
    for first in forms:
        for second in forms:
            found = measured([first(ones * 3), second(ones * 2)])
            assert found == pytest.approx([3 * math.sqrt(24), 2 * math.sqrt(24)], rel=1e-13)


def test_a_large_one_that_lies_otherwise_is_measured_as_it_is_now() -> None:
    whole = normal(2 * (PIECE + 6)).view(2, 2, -1)
    for tensor in (whole[0], whole.transpose(0, 1)[0], whole[0].t(), whole[0].double(), whole[0].half()):
        assert measured([tensor]) == pytest.approx([exact_norm([tensor])], rel=1e-13)


def test_two_threads_at_once() -> None:
    lists = [[torch.full((n,), value) for n in (10, 3000, 700_000)] for value in (1.0, 3.0)]
    wrong: list[object] = []

    def measure(tensors: list[Tensor]) -> None:
        expected = [float(t[0]) * math.sqrt(t.numel()) for t in tensors]
        wrong.extend(
            found for _ in range(20) if (found := measured(tensors)) != pytest.approx(expected, rel=1e-12)
        )

    threads = [threading.Thread(target=measure, args=(tensors,)) for tensors in lists]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_in_inference_mode_and_out_of_it() -> None:
    tensors = [torch.full((n,), 2.0) for n in (4, PIECE + 1)]
    found: list[list[float]] = []

    def measure() -> None:
        # The first measurement of a thread makes what it measures with.
        for mode in (True, False, True):
            with torch.inference_mode(mode):
                found.append(measured(tensors))

    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    assert found == [[4.0, pytest.approx(2 * math.sqrt(PIECE + 1))]] * 3


class Seen(TorchDispatchMode):
    """Counts operations, but for views, and the most bytes that one of them has allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        storages = [t.untyped_storage() for t in tree_leaves(made) if isinstance(t, Tensor)]
        if func.overloadpacket.__name__ not in ("view", "split", "slice"):
            self.counts[func.overloadpacket.__name__] += 1
            self.most = max([self.most, *(s.nbytes() for s in storages if s.data_ptr() not in given)])
        return made


def seen(tensors: Sequence[Tensor]) -> Seen:
    measured(tensors)
    with Seen() as seen:
        measured(tensors)
    return seen


@pytest.mark.parametrize("shape", [(12,), (3, 4)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_operations_do_not_grow_with_the_number_of_small_ones(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    few, many = (seen([torch.ones(shape, dtype=dtype)] * count).counts for count in (2, 200))
    assert few == many == {"cat": 1, "copy_": 1}


def test_no_large_one_is_copied() -> None:
    large = torch.ones(4, 5 * PIECE // 8)
    last = large.view(4, 8, -1, 64).contiguous(memory_format=torch.channels_last)
    for tensors in ([large], [large.t(), last]):
        assert seen(tensors).most <= 8  # a sum
    assert seen([torch.ones(SMALL)] * 50).most <= 4 * LINE


def test_no_line_is_run_for_each_of_those_that_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure, "_plain", None)
    gradients = [torch.ones(4), None, torch.nn.Parameter(torch.ones(9)), torch.ones(4, 4, dtype=torch.float64).t()]
    out = bytearray(b"\xff" * 32)
    assert pure.norms(gradients, b"".join(n.to_bytes(8, "little") for n in range(4)), out) == (29.0, 0, None)
    assert memoryview(out).cast("d").tolist() == [2.0, 0.0, 3.0, 4.0]


def test_a_subclass_is_left_alone_even_where_all_else_is_plain() -> None:
    with FakeTensorMode():
        fake = torch.ones(2)
    for odd in (fake, torch.ones(2).as_subclass(Named)):
        assert pure.norms([odd, torch.ones(4)], bytes(8) + (1).to_bytes(8, "little"), bytearray(16)) == (
            4.0,
            0,
            [0],
        )


def test_a_loop_that_never_repeats_fills_no_memory() -> None:
    for size in range(1, 100):
        measured([torch.ones(size)])
    assert host._thread.plan.cache_info().currsize == 32
