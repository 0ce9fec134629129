"""A trap for copies between devices: ``.cpu()`` raises on no tensor, and waits all the same.

So does a copy towards a device that is not asked for without blocking.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Copies(TorchDispatchMode):
    """Notes each copy from a device to the host.

    Attributes:
        waiting: operations that wait for the device.
        passing: copies that do not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.passing: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            self.waiting.append(name)
        elif name == "copy_" and leaves_the_device(args[1], args[0].device):
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            (self.passing if non_blocking else self.waiting).append(name)
        elif name in ("_to_copy", "to") and leaves_the_device(args[0], kwargs.get("device")):
            # Even without blocking, what arrives in memory that is not page-locked has been waited for.
            self.waiting.append(name)
        elif (
            name == "_to_copy"
            and leaves_the_host(args[0], kwargs.get("device"))
            and not kwargs.get("non_blocking", False)
        ):
            self.waiting.append(name)
        return func(*args, **kwargs)


def leaves_the_host(tensor: Any, target: Any) -> bool:
    return tensor.device.type == "cpu" and target is not None and torch.device(target).type != "cpu"


def leaves_the_device(tensor: Any, target: Any) -> bool:
    on_device = isinstance(tensor, Tensor) and tensor.device.type != "cpu"
    return on_device and target is not None and torch.device(target).type == "cpu"
