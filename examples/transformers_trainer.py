"""transformers: the Trainer makes its optimizer when it is asked to, and uses that one in ``train``.

Needs ``pip install "gradwatch[interop]"``; run ``python -m examples.transformers_trainer``.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import gradwatch


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
        trainer = Trainer(model=model, args=settings, train_dataset=data)
        blocks = {f"block{number}": block for number, block in enumerate(model.transformer.h)}
        with gradwatch.track(trainer.create_optimizer(), {"embedding": model.transformer.wte, **blocks}) as watch:
            trainer.train()
    return watch


if __name__ == "__main__":
    for record in train().history:
        shares = ", ".join(f"{name} {norms.norm_after:.3g}" for name, norms in record.modules.items())
        print(f"{record.step}: {record.norm_before:.4g} -> {record.norm_after:.4g} ({shares})")
