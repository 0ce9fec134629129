"""What a run of GPT-2 takes up as a JSONL file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gradwatch
from tests.interop.library import library

transformers = library("transformers")
pytestmark = pytest.mark.interop


def test_ten_thousand_steps_of_gpt2_take_at_most_ten_megabytes(tmp_path: Path) -> None:
    """All twelve blocks and their names, narrow: a line has a number for each of them, however wide it is."""
    config = transformers.GPT2Config(n_layer=12, n_head=2, n_embd=8, vocab_size=50, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    path = tmp_path / "run.jsonl"
    with gradwatch.track(optimizer, model, sinks=[gradwatch.sinks.Jsonl(path)]) as watch:
        for _ in range(20):
            tokens = torch.randint(0, 50, (2, 16))
            optimizer.zero_grad()
            model(tokens, labels=tokens).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    steps = [line for line in path.read_text().splitlines(keepends=True) if line.startswith('{"kind": "step"')]
    assert len(steps) == 20
    assert len(watch["optimizer"].modules) >= 14
    # The number of a step has four digits more by then.
    assert max(map(len, steps)) + 4 <= 10_000_000 / 10_000
