"""A watch may be read by one thread while another trains."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import gradwatch


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_reading_meets_no_half_made_step() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    failed: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                steps = [record.step for record in watch.history]
                assert steps == list(range(steps[0], steps[0] + len(steps))) if steps else True
                _ = watch.last, watch.alerts, watch.active, watch.state_dict()
            except Exception as error:
                failed.append(error)

    with gradwatch.track(optimizer, model, history=50) as watch:
        reader = threading.Thread(target=read)
        reader.start()
        for step in range(300):
            optimizer.zero_grad()
            (model(torch.ones(2)).sum() * (float("nan") if step % 30 == 7 else 1.0)).backward()
            optimizer.step()
        done.set()
        reader.join()
    assert failed == []
    assert watch["optimizer"].step == 300
