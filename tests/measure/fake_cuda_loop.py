"""A loop on a CUDA device that is not there; prints what it made of it. Run by ``test_no_host_read``.

Autograd wants a real device, so that gradients are set by hand. The loop runs once for each of some reads that are
put into the measuring, the controls, and once as it is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).parents[2]))

import gradwatch
from gradwatch.measure import devices
from tests.measure.copies import Copies

# Imported before there is a device that is not there.
track = gradwatch.track

READS = {"cpu": Tensor.cpu, "item": lambda t: t.sum().item(), "tolist": Tensor.tolist}


class Never:
    """The event of a device that never gets there."""

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        raise RuntimeError("the loop has waited")


class NoDevice:
    """What torch knows of a device, without one."""

    Event = Never
    device = stream = staticmethod(contextlib.nullcontext)

    @staticmethod
    def current_stream(_: torch.device) -> None:
        return None

    @staticmethod
    def is_available() -> bool:
        """Asked from torch 2.14 on, before anything is put there."""
        return True


def with_a_read(read: Callable[[Tensor], object]) -> Callable[[Tensor, Tensor, list[Tensor]], None]:
    def reading(out: Tensor, places: Tensor, tensors: list[Tensor]) -> None:
        write_norms(out, places, tensors)
        read(out)

    return reading


def train(name: str, copies: Copies) -> None:
    parameters = [nn.Parameter(torch.empty(shape, device="cuda")) for shape in ((4, 3), (3,), (), (0,))]
    parameters.append(nn.Parameter(torch.empty(5, dtype=torch.bfloat16, device="cuda")))
    optimizer = torch.optim.SGD(parameters, lr=0.1, foreach=True)
    with track(optimizer) as watch:
        for step in range(40):
            for parameter in parameters[step % 2 :]:
                parameter.grad = torch.empty_like(parameter)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=False)
            optimizer.step()
        print(
            name,
            f"errors={watch.health().internal_errors} blocks={len(copies.passing)} waiting={len(copies.waiting)}",
        )
        # The values that leaving the `with` would report do not exist.
        watch._reporting._queue._steps.clear()


torch.get_device_module = lambda _: NoDevice
write_norms = devices.write_norms
# The one without a read comes last: those before have left nothing behind.
for name, write in {**{name: with_a_read(read) for name, read in READS.items()}, "none": write_norms}.items():
    devices.write_norms = write
    with FakeTensorMode(), torch.no_grad(), Copies() as copies:
        train(name, copies)
