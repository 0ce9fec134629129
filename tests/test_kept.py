"""What is held of steps for long is bounded in steps and in bytes, whatever a step is like."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch
from gradwatch import verdicts
from gradwatch.blocks import Block, Facts, Kept, Layout, NotedClip, StepRow, Steps
from tests.blocks import layout_of

COLUMNS = 2000
MOST = 1 << 20
EVERYTHING = np.arange(COLUMNS)


def named(prefix: str = "layer") -> Layout:
    return layout_of([f"{prefix}.{i}.weight" for i in range(COLUMNS)], [prefix])


LAYOUT, USUAL = named(), Facts.usual(COLUMNS)
CLIP = NotedClip("clip_grad_norm_", 1.0, 2.0, 3.0, EVERYTHING)


def usual(step: int) -> StepRow:
    return StepRow(step, float(step), USUAL, clips=(CLIP,))


def drawn(step: int) -> StepRow:
    """Experts are drawn: other gradients are there in each step."""
    there = np.arange(COLUMNS) % 7 == step % 7
    facts = Facts(there, there.copy(), *(there.copy() for _ in range(6)))
    return StepRow(step, float(step), facts, clips=tuple(CLIP._replace(limit=float(i)) for i in range(200)))


def left_out(step: int) -> StepRow:
    names = {module: tuple(LAYOUT.names[step : step + 20]) for module in LAYOUT.names[:40]}
    return StepRow(step, float(step), USUAL, left_out=names)


def block_of(row: Callable[[int], StepRow], first: int, size: int, layout: Layout = LAYOUT) -> Steps:
    norms = np.ones((size, len(layout.names)))
    return Steps.of(Block(layout, [row(step) for step in range(first, first + size)], norms, norms.copy()))


def taken(kept: Kept, row: Callable[[int], StepRow], count: int, size: int, layout: Callable[[], Layout]) -> None:
    for first in range(1, count + 1, size):
        steps = block_of(row, first, size, layout())
        list(steps)  # whoever judges or writes them works out a good deal more than is to be held
        kept.take(steps)


def held_bytes(fill: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize(
    ("row", "layout"),
    [(usual, lambda: LAYOUT), (drawn, lambda: LAYOUT), (left_out, lambda: LAYOUT), (usual, named)],
)
def test_real_bytes_are_within_the_bound(
    row: Callable[[int], StepRow], layout: Callable[[], Layout], size: int
) -> None:
    kept = Kept(1024, MOST)
    held = held_bytes(partial(taken, kept, row, 256, size, layout))
    alone = Kept(1024, MOST)
    one_block = held_bytes(lambda: alone.take(block_of(row, 1, size, layout())))
    assert held < 1.2 * max(MOST, one_block)
    assert held > 0.3 * MOST
    assert 0 < len(kept.steps()) < 256
    assert kept.missing == 256 - len(kept.steps())


def test_of_small_steps_as_many_are_held_as_are_asked_for_the_newest() -> None:
    kept = Kept(50, 64 << 20)
    for first in range(1, 200, 16):
        kept.take(block_of(usual, first, 16))
        steps = [record.step for record in kept.steps()]
        newest = first + 15
        assert steps == list(range(max(newest - 49, 1), newest + 1))
        assert len(kept._entries) <= 50 // 16 + 2
    assert kept.missing == 0


def test_what_is_larger_than_all_the_room_is_held_alone() -> None:
    kept = Kept(50, 10)
    kept.take(block_of(usual, 1, 4))
    kept.take(block_of(usual, 5, 4))
    assert [record.step for record in kept.steps()] == [5, 6, 7, 8]
    assert kept.missing == 4


def test_nothing_is_held_where_nothing_is_asked_for() -> None:
    kept = Kept(0, MOST)
    kept.take(block_of(usual, 1, 4))
    assert list(kept.steps()) == []
    assert kept.missing == 0


def test_what_is_read_is_not_held() -> None:
    kept = Kept(64, 64 << 20)
    taken(kept, usual, 64, 16, lambda: LAYOUT)
    before = held_bytes(lambda: None)
    assert held_bytes(lambda: list(kept.steps())) < before + 20_000


def test_a_watch_of_many_modules_holds_what_fits_and_says_how_many_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdicts, "HISTORY_BYTES", 1 << 18)
    model = nn.ModuleList(nn.Linear(1, 1) for _ in range(500))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track(optimizer, model, rules=()) as watch:
        for _ in range(64):
            optimizer.zero_grad()
            torch.stack([layer(torch.ones(1)) for layer in model]).sum().backward()
            optimizer.step()
        held = [record.step for record in watch.history]
        assert held == list(range(65 - len(held), 65))
        # 16,000 bytes a step of both norms alone.
        assert 1 <= len(held) <= (1 << 18) // 16_000 + 16
        assert watch.health().forgotten_records == 64 - len(held)
