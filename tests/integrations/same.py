"""Two trainings of one seed that were watched in two ways."""

from __future__ import annotations

from typing import Any

import gradwatch


def numbers(watch: gradwatch.Watch) -> list[tuple[Any, ...]]:
    """All that was measured, but the time."""
    assert watch.health().internal_errors == 0
    return [
        (
            record.optimizer,
            record.step,
            record.norm_before,
            record.norm_after,
            record.max_norm,
            record.backward_passes,
            dict(record.modules),
            dict(record.parameters),
        )
        for record in watch.history
    ]
