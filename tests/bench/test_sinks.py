"""What sinks cost a step, counted: a call of Python is some 0.1 us of the training, in whatever thread it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.figures import on_what, written_on
from tests.bench.sinks import calls_of_three_sinks

pytest.importorskip("tensorboard")
pytest.importorskip("prometheus_client")

# 19.1 when it was counted last, and some more where a second of the clock ends in it; before sinks rested, and drew
# several blocks at once, it was 131.
MOST = 20


def test_three_sinks_make_no_more_calls(tmp_path: Path) -> None:
    calls = calls_of_three_sinks(tmp_path)
    print(f"{calls:g} calls added to a step by JSONL, TensorBoard and Prometheus")
    assert calls <= MOST * (1 if on_what() == written_on() else 1.1)
