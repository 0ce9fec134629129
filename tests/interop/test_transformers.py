"""transformers' Trainer, unmodified: it accumulates and clips by way of Accelerate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop.library import library
from tests.interop.probe import Probe
from tests.interop.scaling import with_scaler
from tests.loops.run import Run, conformance

transformers = library("transformers")

pytestmark = pytest.mark.interop

WORDS, LENGTH, BATCH = 40, 12, 2
STEPS, ACCUMULATED, LIMIT = 5, 3, 0.5


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=WORDS,
        max_position_embeddings=LENGTH,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return transformers.BertForMaskedLM(config)


def sentences() -> list[dict[str, Any]]:
    made = torch.randint(WORDS, (STEPS * ACCUMULATED * BATCH, LENGTH))
    return [{"input_ids": sentence, "labels": sentence} for sentence in made]


def trainer_of(model: Any, folder: Path, **settings: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATED,
        max_grad_norm=LIMIT,
        max_steps=STEPS,
        learning_rate=1e-3,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **settings,
    )
    return transformers.Trainer(model=model, args=arguments, train_dataset=sentences())


@pytest.mark.parametrize("make", [gpt2, bert])
@conformance
def test_trainer(run: Run, make: Any, tmp_path: Path) -> None:
    model = make()
    trainer = trainer_of(model, tmp_path)
    optimizer = trainer.create_optimizer()
    with run.track(optimizer, model) as tracker, Probe(run, {"optimizer": optimizer}):
        trainer.train()
    assert len(tracker.truths) == STEPS
    assert {truth.passes for truth in tracker.truths} == {ACCUMULATED}
    assert {truth.max_norm for truth in tracker.truths} == {LIMIT}
    assert any(truth.clipped for truth in tracker.truths)
    assert tracker.watch is None or tracker.watch.alerts == []


@conformance
def test_trainer_with_a_scaler(run: Run, tmp_path: Path) -> None:
    """The first scale is too large for float16, so that steps are left out until it fits."""
    model = gpt2()
    trainer = trainer_of(model, tmp_path, fp16=True)
    scaler = with_scaler(trainer.accelerator, 2.0**20)
    optimizer = trainer.create_optimizer()
    with run.track(optimizer, model) as tracker, Probe(run, {"optimizer": optimizer}, scaler=scaler):
        trainer.train()
    assert [truth.skipped for truth in (tracker.truths[0], tracker.truths[-1])] == [True, False]
    assert {truth.passes for truth in tracker.truths} == {ACCUMULATED}
    assert len({truth.loss_scale for truth in tracker.truths}) > 1
