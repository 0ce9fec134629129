"""Whole tracked steps while torch forbids to wait for the device: blocks are sent, and nothing is read."""

from __future__ import annotations

import pytest
import torch

import gradwatch
from tests.gpu.devices import DEVICES, MODE_IS_YOUNG, no_waiting
from tests.gpu.loop import Loop, nothing
from tests.gpu.training import LOOPS

WARM_UP, STEPS = 3, 40


def torch_waits_itself(loop: Loop, device: str) -> bool:
    """Whether the loop waits with nobody watching."""
    for _ in range(WARM_UP):
        loop.step(nothing)
    try:
        with no_waiting(device):
            loop.step(nothing)
    except RuntimeError:
        return True
    return False


@pytest.mark.filterwarnings(MODE_IS_YOUNG)
@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("device", DEVICES)
def test_no_step_waits(device: str, name: str) -> None:
    if torch_waits_itself(LOOPS[name](device), device):
        pytest.skip("torch waits for the device in this loop itself")
    loop = LOOPS[name](device)
    with gradwatch.track(loop.optimizers, loop.modules, history=1000) as watch:
        for _ in range(WARM_UP):  # what is made once may wait
            loop.step(nothing)
        with no_waiting(device):
            for _ in range(STEPS):
                loop.step(nothing)
        assert watch.health().internal_errors == 0
    assert len(watch.history) == (WARM_UP + STEPS) * len(loop.optimizers)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings(MODE_IS_YOUNG)
def test_the_mode_notices_a_read() -> None:
    with no_waiting("cuda"), pytest.raises(RuntimeError):
        torch.ones(1, device="cuda").item()
