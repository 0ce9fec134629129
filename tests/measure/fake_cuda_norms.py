"""Norms of tensors on a CUDA device that is not there; prints what is wrong. Run by ``test_norms_unread``.

Once for each of some reads that are put in, the controls, and once as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).parents[2]))

from gradwatch import global_norm
from gradwatch.measure import norms
from gradwatch.measure.norms import exact_norms, write_norms
from tests.measure.copies import Copies

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
DTYPES += [torch.float8_e4m3fn]


def tensors_on(device: torch.device) -> list[Tensor]:
    found = [torch.empty(3, 4, dtype=dtype, device=device) for dtype in DTYPES]
    strides = [
        ((), ()),
        ((0, 6), (6, 1)),
        ((2, 3), (12, 2)),
        ((4, 6), (1, 4)),
        ((3, 6), (0, 1)),
        ((2, 6, 4, 4), (96, 1, 24, 6)),
    ]
    found += [torch.empty_strided(shape, stride, device=device) for shape, stride in strides]
    found.append(torch.empty(1 << 20, device=device))
    return found


def measure(read: str) -> None:
    def check(what: str, holds: bool) -> None:
        if not holds:
            print(read, "wrong:", what)

    there = tensors_on(CUDA)
    mixed = [tensor for pair in zip(tensors_on(CPU), there, strict=True) for tensor in pair]
    for tensors in (there, there[:1], mixed):
        for norm, tensor in zip(exact_norms(tensors), tensors, strict=True):
            check(
                "a norm", (norm.device, norm.dtype, norm.shape) == (tensor.device, torch.float64, torch.Size([]))
            )
        whole = global_norm(tensors)
        check("the whole", (whole.device, whole.dtype, whole.shape) == (CUDA, torch.float64, torch.Size([])))
    out = torch.zeros(len(there) + 1, dtype=torch.float64, device=CUDA)
    places = torch.arange(len(there), device=CUDA)
    write_norms(out, places, there)
    if read == "cpu":
        out.cpu()


def reading(tensors: list[Tensor]) -> list[Tensor]:
    return [norm for norm in fused(tensors) if norm.item() >= 0]


fused = norms._fused
# The one without a read comes last: those before have left nothing behind.
for read in ("cpu", "item", "none"):
    norms._fused = reading if read == "item" else fused
    with FakeTensorMode(), Copies() as copies:
        try:
            measure(read)
        except RuntimeError as error:
            print(read, "refused:", str(error).splitlines()[0])
    print(read, "waiting:", len(copies.waiting))
