"""Two trainings of one seed that were watched in two ways."""

from __future__ import annotations

import gradwatch


def numbers(watch: gradwatch.Watch) -> list[str]:
    """All that was measured, but the time; as text, in which NaN equals itself."""
    assert watch.health().internal_errors == 0
    return [
        repr(
            (
                record.optimizer,
                record.step,
                record.norm_before,
                record.norm_after,
                record.max_norm,
                record.backward_passes,
                record.skipped,
                record.loss_scale,
                dict(record.modules),
                dict(record.parameters),
            )
        )
        for record in watch.history
    ]
