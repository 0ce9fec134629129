"""Between host and device, through page-locked memory: only such a copy does not hold up the loop."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["downloaded", "uploaded"]


def uploaded(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; the loop goes on while it is copied."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def downloaded(tensor: Tensor) -> npt.NDArray[Any]:
    """The tensor on the host, once it is there."""
    # Without blocking, torch takes page-locked memory for it; what it copies is there when the stream is done.
    here = tensor.detach().to("cpu", non_blocking=True)
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()
    array: npt.NDArray[Any] = here.numpy()
    return array
