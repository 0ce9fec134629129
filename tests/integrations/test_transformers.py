"""The callback of transformers' Trainer measures what ``track`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gradwatch
from tests.integrations.same import numbers
from tests.interop.library import library
from tests.interop.scaling import with_scaler

transformers = library("transformers")

pytestmark = pytest.mark.interop


def trainer(folder: Path, callbacks: list[Any], **settings: Any) -> Any:
    transformers.set_seed(3)
    config = transformers.GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    data = [{"input_ids": words, "labels": words} for words in torch.randint(40, (60, 12))]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 2,
            "max_steps": 6,
            "use_cpu": True,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            **settings,
        },
    )
    made = transformers.Trainer(
        model=transformers.GPT2LMHeadModel(config), args=arguments, train_dataset=data, callbacks=callbacks
    )
    if arguments.fp16:
        with_scaler(made.accelerator, 2.0**20)
    return made


def adapter(**options: Any) -> Any:
    from gradwatch.integrations.transformers import Callback

    return Callback(**options)


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_accumulation_steps": 3}, {"max_grad_norm": 0.1}, {"bf16": True}, {"fp16": True}],
    ids=str,
)
def test_its_numbers_are_those_of_track(settings: dict[str, Any], tmp_path: Path) -> None:
    bare = trainer(tmp_path, [], **settings)
    with gradwatch.track(bare.create_optimizer(), bare.model) as watch:
        bare.train()
    callback = adapter()
    trainer(tmp_path, [callback], **settings).train()
    assert numbers(callback.watch) == numbers(watch)
    assert len(watch.history) == 6
    assert {record.backward_passes for record in watch.history} == {settings.get("gradient_accumulation_steps", 1)}
    # The first scale is too large for float16: steps are left out until it fits.
    skipped = [record.skipped for record in (watch.history[0], watch.history[-1])]
    assert skipped == [settings.get("fp16", False), False]


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    trainer(tmp_path, [adapter()], **saving).train()
    callback = adapter()
    trainer(tmp_path, [callback], **saving).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert [record.step for record in callback.watch.history] == [4, 5, 6]


def test_a_second_training_is_watched_anew(tmp_path: Path) -> None:
    callback = adapter()
    for _ in range(2):
        trainer(tmp_path, [callback]).train()
    assert [record.step for record in callback.watch.history] == [1, 2, 3, 4, 5, 6]
