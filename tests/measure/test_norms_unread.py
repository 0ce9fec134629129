"""Norms are computed without a value being read, by few operations: proved on tensors that have no values."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradwatch import global_norm
from gradwatch.measure import norms
from gradwatch.measure.norms import exact_norms, in_memory_order, write_norms


class Operations(TorchDispatchMode):
    """Counts what is handed to a device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def written(tensors: Sequence[Tensor]) -> Tensor:
    out = torch.zeros(len(tensors), dtype=torch.float64)
    write_norms(out, torch.arange(len(tensors)), tensors)
    return out


def sparse(coalesced: bool) -> Tensor:
    index = torch.zeros(2, 6, dtype=torch.int64)
    # To check them, torch would read the indices.
    with torch.sparse.check_sparse_tensor_invariants(enable=False):
        return torch.sparse_coo_tensor(index, torch.empty(6, 3), (4, 5, 3), is_coalesced=coalesced)


def without_values() -> list[Tensor]:
    dtypes = [torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.float8_e5m2]
    plain = [torch.empty(3, 4, dtype=dtype) for dtype in dtypes]
    return [*plain, plain[1].t(), plain[1][:, :1], plain[1][0, 0], plain[1][:0], sparse(False), sparse(True)]


def as_one(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [global_norm(tensors)]


CALLS: list[Callable[[Sequence[Tensor]], Sequence[Tensor] | Tensor]] = [exact_norms, written, as_one]


@pytest.mark.parametrize("call", CALLS)
def test_no_value_is_needed(call: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> None:
    with FakeTensorMode(), Operations() as seen:
        tensors = without_values()
        results = call(tensors)
        assert all(result.dtype == torch.float64 for result in results)
    # On a device it would read how many indices differ; a fake one takes it in silence.
    assert seen.counts["_coalesce"] == 0


def read_item(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.full_like(n, n.item()) for n in torch._foreach_norm(tensors, 2, dtype=torch.float64)]


def read_bool(tensors: list[Tensor]) -> list[Tensor]:
    return [n if n > 0 else n + 1 for n in torch._foreach_norm(tensors, 2, dtype=torch.float64)]


@pytest.mark.parametrize("read", [read_item, read_bool])
@pytest.mark.parametrize("call", CALLS)
def test_a_value_that_is_read_is_noticed(
    call: Callable[[Sequence[Tensor]], Any],
    read: Callable[[list[Tensor]], list[Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(norms, "_fused", read)
    with FakeTensorMode(), pytest.raises(RuntimeError):
        call(without_values())


def test_coalescing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "on_host", lambda _: True)
    with FakeTensorMode(), Operations() as seen:
        exact_norms(without_values())
    assert seen.counts["_coalesce"] == 1


@pytest.fixture(scope="module")
def on_fake_cuda() -> list[str]:
    """What was found, each line after the read that was put in."""
    script = Path(__file__).with_name("fake_cuda_norms.py")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_on_a_fake_cuda_device_nothing_is_read_and_norms_stay_there(on_fake_cuda: list[str]) -> None:
    assert [line for line in on_fake_cuda if line.startswith("none ")] == ["none waiting: 0"]


@pytest.mark.parametrize("read", ["item", "cpu"])
def test_on_a_fake_cuda_device_a_read_is_noticed(on_fake_cuda: list[str], read: str) -> None:
    told = [line for line in on_fake_cuda if line.startswith(f"{read} ")]
    assert told
    assert told != [f"{read} waiting: 0"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_operations_do_not_grow_with_the_number_of_tensors(call: Callable[..., Any], dtype: torch.dtype) -> None:
    def operations(count: int) -> int:
        tensors = [torch.ones(3, 2, dtype=dtype) for _ in range(count)]
        with Operations() as seen:
            call(tensors)
        return seen.counts.total()

    assert operations(2) == operations(50) <= 32


@pytest.mark.parametrize(
    "odd",
    [
        [torch.ones(4, 6)[:, ::2]],
        [torch.ones(3, dtype=torch.float16)],
        [torch.ones(1).expand(3)],
        [torch.ones(12).as_strided((4, 1, 3), (1, 99, 4)), torch.ones(2, 3, dtype=torch.complex64).conj()],
    ],
)
def test_a_tensor_of_another_kind_leaves_the_others_together(odd: list[Tensor]) -> None:
    with Operations() as seen:
        exact_norms([*(torch.ones(3) for _ in range(50)), *odd])
    # The last two are of float32 and dense as well, once the complex one is seen as real.
    assert seen.counts["_foreach_norm"] == (2 if len(odd) == 1 else 1)


class Pieces(TorchDispatchMode):
    """Notes the most elements that one tensor has where its values would be widened."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_foreach_norm":
            self.most = max(self.most, *(tensor.numel() for tensor in args[0]))
        return func(*args, **(kwargs or {}))


def test_in_cpu_memory_no_large_tensor_is_widened_as_a_whole() -> None:
    large = torch.ones(1 << 20)
    for tensors in ([large], [large, torch.ones(3, dtype=torch.float64)], [large.view(4, -1).t(), large[:5]]):
        with Pieces() as seen:
            exact_norms(tensors)
        assert 0 < seen.most <= 1 << 18


def test_a_dense_tensor_is_not_copied_to_be_cut_into_pieces() -> None:
    last = torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for tensor in (last, last.mT, torch.ones(6, 7).t(), torch.ones(5)):
        assert in_memory_order(tensor).data_ptr() == tensor.data_ptr()
        assert in_memory_order(tensor).shape == (tensor.numel(),)
