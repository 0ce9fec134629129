"""Training on streams of its own, and captured in a graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradwatch
from tests.gpu.devices import needs_cuda
from tests.gpu.reference import Noted
from tests.gpu.training import LOOPS

pytestmark = [pytest.mark.cuda, needs_cuda]

STEPS = 40
CLOSE = 1e-12


def check(watch: gradwatch.Watch, noted: Noted) -> None:
    assert watch.health().internal_errors == 0
    expected = noted.norms("optimizer")
    assert len(watch.history) == len(expected) == STEPS
    for record, (before, after) in zip(watch.history, expected, strict=True):
        assert record.norm_before == pytest.approx(before, rel=CLOSE)
        assert record.norm_after == pytest.approx(after, rel=CLOSE)


def test_a_side_stream() -> None:
    loop, noted, stream = LOOPS["adam, fused"]("cuda"), Noted(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with gradwatch.track(loop.optimizers, loop.modules) as watch, torch.cuda.stream(stream):
        for _ in range(STEPS):
            loop.step(noted)
    stream.synchronize()
    check(watch, noted)


def test_two_streams_and_two_trackers() -> None:
    loops = [LOOPS[name]("cuda") for name in ("sgd", "adam, foreach")]
    noted, streams = [Noted(), Noted()], [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    first, second = (gradwatch.track(loop.optimizers, loop.modules) for loop in loops)
    with first, second:
        for _ in range(STEPS):
            for loop, look, stream in zip(loops, noted, streams, strict=True):
                with torch.cuda.stream(stream):
                    # Work that the other stream does not have: the two run apart.
                    torch.randn(512, 512, device="cuda").matmul(torch.randn(512, 512, device="cuda"))
                    loop.step(look)
        torch.cuda.synchronize()
    check(first, noted[0])
    check(second, noted[1])


def train(weight: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    """Three steps, one that is captured and replayed twice, and two steps more."""

    def step() -> None:
        optimizer.zero_grad()
        (weight + 1).square().sum().backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(2):
        graph.replay()
    for _ in range(2):
        step()


def test_what_is_captured_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    bare, tracked = (nn.Parameter(torch.arange(8.0, device="cuda")) for _ in range(2))
    train(bare, torch.optim.SGD([bare], lr=0.05))
    optimizer = torch.optim.SGD([tracked], lr=0.05)
    with gradwatch.track(optimizer) as watch:
        train(tracked, optimizer)
    assert torch.equal(tracked, bare)
    assert watch.health().internal_errors == 0
    assert len(watch.history) == 5
    assert "captured in a CUDA graph" in caplog.text
