"""Training with and without gradwatch is equal bit for bit, on the device too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import gradwatch
from tests.gpu.devices import DEVICES
from tests.gpu.loop import Loop, held, nothing
from tests.gpu.training import LOOPS

STEPS = 30


@pytest.fixture(autouse=True)
def determined(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same sums in the same order in each run: cuBLAS asks for a workspace of fixed size."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def bits(loop: Loop, device: str) -> dict[str, bytes]:
    """All that training leaves behind, as bytes."""
    found = {"random": torch.get_rng_state()}
    if device == "cuda":
        found["random on the device"] = torch.cuda.get_rng_state()
    for name, optimizer in loop.optimizers.items():
        for index, parameter in enumerate(held(optimizer)):
            place = f"{name}.{index}"
            found[place] = parameter.detach()
            if parameter.grad is not None:
                found[f"{place}.grad"] = parameter.grad
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    found[f"{place}.{key}"] = value
    return {
        place: value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        for place, value in found.items()
    }


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("device", DEVICES)
def test_tracked_as_bare(device: str, name: str) -> None:
    bare = LOOPS[name](device)
    for _ in range(STEPS):
        bare.step(nothing)
    expected = bits(bare, device)
    tracked = LOOPS[name](device)
    with gradwatch.track(tracked.optimizers, tracked.modules) as watch:
        for _ in range(STEPS):
            tracked.step(nothing)
    assert watch.health().internal_errors == 0
    assert bits(tracked, device) == expected


@pytest.mark.parametrize("device", DEVICES)
def test_the_comparison_can_fail(device: str) -> None:
    one, other = LOOPS["sgd"](device), LOOPS["sgd"](device)
    one.step(nothing)
    before = bits(one, device)
    with torch.no_grad():
        held(one.optimizers["optimizer"])[0].view(-1)[0].mul_(1 + 2**-23)
    assert bits(one, device) != before
    assert bits(other, device) != before
