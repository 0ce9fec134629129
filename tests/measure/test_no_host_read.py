"""Nothing on the way of a step reads a device: proved without one, by tensors that have no values to be read.

A fake tensor raises at ``.item()``, ``bool()`` and ``float()``; ``Copies`` sees what else could bring numbers to
the host. Each proof has a control: the same loop with one host read put in must fail it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import gradwatch
from gradwatch.measure import devices, landing
from gradwatch.measure.devices import DeviceNorms
from gradwatch.measure.tracked import TrackedOptimizer
from gradwatch.records import Health
from tests.measure.copies import Copies

STEPS = 40


def clipped_steps() -> Health:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with gradwatch.track(optimizer, model) as watch:
        for step in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).square().mean().backward()
            if step % 2:
                (model(torch.randn(4, 8)).square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return watch.health()


def scaled_steps() -> Health:
    """A fused optimizer unscales inside its own step; what it found is a number on the device."""
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).mean().backward()
            optimizer.grad_scale, optimizer.found_inf = torch.full((), 8.0), torch.zeros(())  # type: ignore[attr-defined]
            optimizer.step()
        return watch.health()


def partly_written_steps() -> Health:
    first, second = nn.Linear(8, 1), nn.Linear(8, 1)
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    with gradwatch.track(optimizer, {"first": first, "second": second}) as watch:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=False)
            (first(torch.randn(4, 8)) + second(torch.randn(4, 8))).mean().backward()
            optimizer.zero_grad(set_to_none=False)
            first(torch.randn(4, 8)).mean().backward()
            optimizer.step()
        return watch.health()


def guarded_steps(fused: bool = True) -> Health:
    """Whether to leave a step out is what the device of a fused optimizer decides by itself."""
    model = nn.Linear(8, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
    guard = gradwatch.Guard("skip", explosion="skip", after=2)
    with gradwatch.track(optimizer, model, guard=guard) as watch:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).mean().backward()
            optimizer.step()
        return watch.health()


LOOPS = [clipped_steps, scaled_steps, partly_written_steps, guarded_steps]


@pytest.fixture
def far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that never catches up: the loop has to go on all the same."""
    monkeypatch.setattr(landing.HostCopy, "ready", lambda _: False)


def reads_of(loop: Callable[[], Health]) -> int:
    """Reads that were tried, and copies that waited."""
    with FakeTensorMode(), Copies() as copies:
        return loop().internal_errors + len(copies.waiting)


@pytest.mark.usefixtures("far_behind")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_step_needs_no_value(loop: Callable[[], Health]) -> None:
    assert reads_of(loop) == 0


def reading_note(self: DeviceNorms, number: object) -> float | None:
    return float(number) if isinstance(number, Tensor) else None


def reading_write(out: Tensor, places: Tensor, tensors: list[Tensor]) -> None:
    if torch.stack([t.norm() for t in tensors]).sum() > 0:
        out.zero_()


def reading_consume(self: TrackedOptimizer, *_: Any) -> None:
    [p.grad.norm().item() for p in self.own.parameters if p.grad is not None]


CONTROLS = [
    (DeviceNorms, "note", reading_note),
    (devices, "write_norms", reading_write),
    (TrackedOptimizer, "consuming", reading_consume),
    (devices, "on_host", lambda _: True),
]


@pytest.mark.usefixtures("far_behind")
def test_a_guard_that_reads_is_noticed() -> None:
    assert reads_of(lambda: guarded_steps(fused=False)) > 0


@pytest.mark.usefixtures("far_behind")
@pytest.mark.parametrize(("owner", "name", "reading"), CONTROLS)
def test_a_value_that_is_read_is_noticed(
    owner: Any, name: str, reading: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, reading)
    assert reads_of(clipped_steps) > 0


@pytest.fixture(scope="module")
def on_fake_cuda() -> dict[str, str]:
    """What a loop made of it, by the read that was put in."""
    # In a process of its own: fake CUDA tensors leave torch believing that there is a device.
    script = Path(__file__).with_name("fake_cuda_loop.py")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return {read: told for read, _, told in (line.partition(" ") for line in ran.stdout.splitlines())}


def test_on_a_fake_cuda_device_only_full_blocks_are_copied_and_nothing_waits(on_fake_cuda: dict[str, str]) -> None:
    # 40 steps are two full blocks of 16.
    assert on_fake_cuda["none"] == "errors=0 blocks=2 waiting=0"


@pytest.mark.parametrize("read", ["cpu", "item", "tolist"])
def test_on_a_fake_cuda_device_a_read_is_noticed(on_fake_cuda: dict[str, str], read: str) -> None:
    errors, _, waiting = on_fake_cuda[read].split()
    assert (errors, waiting) != ("errors=0", "waiting=0")
