"""The native kernel reads what it may and nothing else, whatever others do meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from torch import Tensor

from gradwatch.measure import kernel
from tests.measure.kernels import native

ROOT = Path(__file__).parents[2]
# Numbers that are read in three pieces, with a turn for others before the second and the third.
LARGE = 2 * (1 << 20) + 5
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@contextmanager
def at_each_turn(act: Callable[[], object]) -> Iterator[list[int]]:
    """Do something where another thread would have its turn; the list grows with each."""
    turns: list[int] = []

    def seen(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_name == "take_turns":
            turns.append(len(turns))
            act()

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        yield turns
    finally:
        sys.setprofile(before)


def ones(size: int = LARGE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(size, dtype=dtype)


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_others_have_a_turn_between_two_pieces(dtype: torch.dtype) -> None:
    out = bytearray(8)
    with at_each_turn(lambda: None) as turns:
        kernel._native.norms([ones(dtype=dtype)], bytes(8), out)
    assert len(turns) == 2
    assert np.frombuffer(out)[0] == pytest.approx(LARGE**0.5, rel=1e-15)


# What another thread does to a gradient in its turn, and the square of the norm; None where it is left to torch.
CHANGES: dict[str, tuple[Callable[[Tensor], object], float | None]] = {
    "nothing": (lambda g: None, LARGE),
    "its values": (lambda g: g[-5:].zero_(), LARGE - 5),
    "other memory": (lambda g: setattr(g, "data", 2 * ones()), 4 * LARGE),
    "fewer": (lambda g: g.resize_(7), 7),
    "shorter memory": (lambda g: setattr(g, "data", ones(5)), 5),
    "memory of another kind": (lambda g: setattr(g, "data", ones(dtype=torch.float64)), LARGE),
    "memory in other steps": (lambda g: setattr(g, "data", ones(16).reshape(4, 4)[:, :2]), None),
    "another storage": (lambda g: g.set_(ones(9)), 9),
    "no memory": (lambda g: g.untyped_storage().resize_(0), None),
}


@native
@pytest.mark.parametrize("change", CHANGES)
def test_a_gradient_that_changes_in_a_turn_is_read_anew(change: str) -> None:
    act, squared = CHANGES[change]
    gradient = ones()
    out = bytearray(8)
    with at_each_turn(lambda: act(gradient)) as turns:
        total, zeros, left = kernel._native.norms([gradient], bytes(8), out)
    assert (zeros, left) == (0, [0] if squared is None else None)
    assert total == pytest.approx(squared or 0.0, rel=1e-14)
    # Read for the second time it is read in one go.
    assert len(turns) == (2 if change in ("nothing", "its values") else 1)


@native
def test_lists_that_change_in_a_turn() -> None:
    gradients = [ones(), ones(4)]
    out = bytearray(16)
    with at_each_turn(gradients.clear), pytest.raises(IndexError):
        kernel._native.norms(gradients, np.arange(2).tobytes(), out)
    assert np.frombuffer(out).tolist() == pytest.approx([LARGE**0.5, 0.0])
    with at_each_turn(lambda: out_of_reach.clear()), pytest.raises(IndexError):
        out_of_reach = bytearray(8)
        kernel._native.norms([ones()], bytes(8), out_of_reach)


@native
def test_an_interrupt_in_a_turn_is_the_callers() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    gradient = ones()
    before = sys.getrefcount(gradient)
    with pytest.raises(KeyboardInterrupt), at_each_turn(interrupt):
        kernel._native.norms([gradient], bytes(8), bytearray(8))
    assert sys.getrefcount(gradient) == before


@native
def test_the_same_where_torch_has_no_dlpack_for_c() -> None:
    """As in older ones, such as torch 2.6."""
    hidden = "import torch, sys, pytest; NAME = '__dlpack_c_exchange_api__'\n"
    hidden += "if hasattr(torch.Tensor, NAME): delattr(torch.Tensor, NAME)\n"
    hidden += "sys.exit(pytest.main(['-p', 'no:cacheprovider', *sys.argv[1:]]))"
    chosen = "(read_natively and float32) or written_counted or in_a_turn or freed"
    tests = ["tests/measure/test_kernel.py", "tests/measure/test_native_memory.py"]
    ran = subprocess.run(
        [sys.executable, "-c", hidden, "-k", chosen, *tests], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


@native
def test_gradients_that_others_free_replace_and_shrink() -> None:
    """A short form of what ``make sanitize`` runs."""
    ran = subprocess.run(
        [sys.executable, "tests/measure/disturbed.py", "20"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_the_arithmetic_under_the_sanitizers(tmp_path: Path) -> None:
    program = tmp_path / "sums"
    sources = [ROOT / "tests/measure/sums_driver.c", ROOT / "gradwatch/measure/sums.c"]
    flags = ["-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = subprocess.run([COMPILER, *flags, *sources, "-o", program, "-lm"], capture_output=True, text=True)
    if "sanitize" in built.stderr or "asan" in built.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    # One that others preload comes before the sanitizer's own memory, which it refuses.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    ran = subprocess.run([program], env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
