"""transformers: one callback; without arguments it tells of the parts of the model, here of some of them.

Needs ``pip install "gradwatch[interop]"``; run ``python -m examples.transformers_trainer``.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import gradwatch
from gradwatch.integrations.transformers import Callback


def train(steps: int = 10) -> gradwatch.Watch:
    """Train a tiny GPT-2 on random tokens, two batches accumulated a step, and return what was watched."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2))
    tokens = torch.randint(50, (4 * steps, 16))
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=2, gradient_accumulation_steps=2, use_cpu=True
        )
        data = [{"input_ids": row, "labels": row} for row in tokens]
        blocks = {f"block{number}": block for number, block in enumerate(model.transformer.h)}
        callback = Callback(modules={"embedding": model.transformer.wte, **blocks})
        Trainer(model=model, args=settings, train_dataset=data, callbacks=[callback]).train()
    assert callback.watch is not None
    return callback.watch


if __name__ == "__main__":
    for record in train().history:
        shares = ", ".join(f"{name} {norms.norm_after:.3g}" for name, norms in record.modules.items())
        print(f"{record.step}: {record.norm_before:.4g} -> {record.norm_after:.4g} ({shares})")
