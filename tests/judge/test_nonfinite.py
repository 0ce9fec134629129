"""A step that a GradScaler has left out is no news where it had raised its scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.blocks import Block, Facts, StepRow
from gradwatch.rules import NonFinite
from tests.blocks import judged_alike, layout_of
from tests.made_up import record

# By step, the loss scale, and whether its gradients were finite.
Scales = Sequence[tuple[float | None, bool]]


def told(scales: Scales, in_blocks_of: int) -> list[tuple[int, str, str]]:
    layout = layout_of(("a.weight",), ("a",))
    norms = np.array([[1.0 if fine else math.inf] for _, fine in scales])
    rows = [
        StepRow(step, float(step), Facts.usual(1), skipped=not fine, loss_scale=scale)
        for step, (scale, fine) in enumerate(scales, 1)
    ]
    after = np.where(np.isfinite(norms), norms, np.nan)
    blocks = [
        Block(layout, rows[i : i + in_blocks_of], norms[i : i + in_blocks_of], after[i : i + in_blocks_of])
        for i in range(0, len(rows), in_blocks_of)
    ]
    alerts = judged_alike(blocks, lambda: [NonFinite()])
    return [(alert.step, alert.severity, alert.state) for alert in alerts]


@pytest.mark.parametrize("in_blocks_of", [1, 3, 16])
@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        # It has raised its scale, and takes that back.
        ([(1.0, True)] * 3 + [(2.0, False)] + [(1.0, True)] * 3, []),
        # So it is if some steps were sound at that scale, and whenever it comes again.
        (2 * ([(1.0, True)] * 3 + [(2.0, True)] * 3 + [(2.0, False)]), []),
        # The scale that it has raised was not what was wrong.
        ([(1.0, True)] * 3 + [(2.0, False), (1.0, False)] + [(1.0, True)] * 3, [(5, "warning", "firing")]),
        # Of the first scale it is not known whether it was ever sound.
        ([(4.0, False), (2.0, True)], [(1, "warning", "firing")]),
        ([(1.0, True), (4.0, False), (2.0, False)], [(3, "warning", "firing")]),
        # One that was sound and was not raised is not any more.
        ([(1.0, True)] * 3 + [(1.0, False)], [(4, "warning", "firing")]),
        # A guard has left it out, and no scaler.
        ([(None, True)] * 3 + [(None, False)], [(4, "warning", "firing")]),
        ([(4.0, False)] * 10, [(1, "warning", "firing"), (10, "warning", "resolved"), (10, "critical", "firing")]),
    ],
)
def test_a_skipped_step(scales: Scales, expected: list[tuple[int, str, str]], in_blocks_of: int) -> None:
    assert told(scales, in_blocks_of) == expected


def test_a_step_that_a_guard_has_stopped_is_critical_at_a_raised_scale_too() -> None:
    rule = NonFinite()
    assert rule.look(record(1, loss_scale=1.0)) == []
    rule.was_refused("actor", 2)
    (found,) = rule.look(record(2, loss_scale=2.0, skipped=True, nonfinite=("mlp.weight",))) or ()
    assert found.severity == "critical"
    assert "refused" in found.message


def test_a_scaler_that_raises_its_scale_now_and_then_is_no_news() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    # The tenth sound step doubles it, and 2 ** 17 is too much for float16.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**13, growth_interval=10)
    with gradwatch.track(optimizer, model) as watch:
        for _ in range(120):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = model(torch.randn(8, 4)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert sum(record.skipped for record in watch.history) >= 3
    assert watch.alerts == []
