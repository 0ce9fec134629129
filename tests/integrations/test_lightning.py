"""The callback of Lightning measures what ``track`` does, whoever steps the optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gradwatch
from tests.integrations.same import numbers
from tests.interop import lightning_loops
from tests.interop.lightning_loops import Automatic, Manual, lightning, scaled

pytestmark = lightning_loops.MARKS

BATCHES = 12


class ByHand(lightning.Callback):  # type: ignore[misc]
    """What a user writes without the adapter."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        optimizers = dict(zip(self.names, trainer.optimizers, strict=True))
        self.watch = gradwatch.track(optimizers, pl_module).start()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.watch.close()


def fit(module: type, callback: Any, folder: Path, resume: str | None = None, **settings: Any) -> gradwatch.Watch:
    lightning.seed_everything(3)
    lightning_loops.fit(module(), callback, folder, BATCHES, resume, **settings)
    watch: gradwatch.Watch = callback.watch
    return watch


def adapter(**options: Any) -> Any:
    from gradwatch.integrations.lightning import Callback

    return Callback(**options)


class Accumulating(Manual):
    """Steps on each third batch; the gradients of the others are summed up by hand."""

    def update(self, optimizer: Any, loss: torch.Tensor) -> None:
        self.manual_backward(loss)
        if (self.trainer.fit_loop.batch_idx + 1) % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_clip_val": 0.1},
        {"accumulate_grad_batches": 3},
        {"precision": "bf16-mixed"},
        {"scale": 2.0**18, "gradient_clip_val": 0.1},
    ],
    ids=str,
)
def test_automatic_optimization(settings: dict[str, Any], tmp_path: Path) -> None:
    own = fit(Automatic, ByHand("optimizer"), tmp_path, **with_plugins(settings))
    assert numbers(fit(Automatic, adapter(), tmp_path, **with_plugins(settings))) == numbers(own)
    assert len(own.history) == BATCHES // settings.get("accumulate_grad_batches", 1)
    assert set(own.history[0].modules) == {"net.0", "net.3"}


def with_plugins(settings: dict[str, Any]) -> dict[str, Any]:
    """A scaler remembers: each training has its own."""
    rest = {name: value for name, value in settings.items() if name != "scale"}
    return {**rest, "plugins": [scaled(settings["scale"])]} if "scale" in settings else rest


@pytest.mark.parametrize("module", [Manual, Accumulating])
def test_several_optimizers_bear_the_names_of_what_they_hold(module: type, tmp_path: Path) -> None:
    own = fit(module, ByHand("generator", "critic"), tmp_path)
    assert numbers(fit(module, adapter(), tmp_path)) == numbers(own)
    assert [record.optimizer for record in own.history[:2]] == ["critic", "generator"]
    assert len(own.history) == 2 * BATCHES // (3 if module is Accumulating else 1)


def test_steps_that_a_scaler_leaves_out_are_told_of(tmp_path: Path) -> None:
    watch = fit(Automatic, adapter(), tmp_path, plugins=[scaled(2.0**18)])
    first, last = watch.history[0], watch.history[-1]
    assert (first.skipped, first.loss_scale) == (True, 2.0**18)
    assert not last.skipped
    assert last.norm_before < 10  # in the units of the loss, not of the scale


@pytest.mark.parametrize("amp", [False, True])
def test_a_resumed_run_goes_on_counting(amp: bool, tmp_path: Path) -> None:
    class Keeping(Automatic):
        def on_train_epoch_end(self) -> None:
            self.trainer.save_checkpoint(tmp_path / f"{self.current_epoch}.ckpt")

    settings = [{"max_epochs": 2, "plugins": [scaled(2.0**18)] if amp else None} for _ in range(2)]
    whole = fit(Keeping, adapter(), tmp_path, **settings[0])
    again = fit(Automatic, adapter(), tmp_path, resume=str(tmp_path / "0.ckpt"), **settings[1])
    assert [record.step for record in again.history] == list(range(BATCHES + 1, 2 * BATCHES + 1))
    assert [r.loss_scale for r in again.history] == [r.loss_scale for r in whole.history[BATCHES:]]


def test_a_training_that_fails_is_not_watched_any_more(tmp_path: Path) -> None:
    class Failing(Automatic):
        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            if self.global_step == 3:
                raise RuntimeError("out of patience")
            return super().training_step(batch)

    callback = adapter()
    with pytest.raises(RuntimeError, match="patience"):
        fit(Failing, callback, tmp_path)
    with pytest.raises(gradwatch.errors.TrackerStateError):
        callback.watch.flush()
    assert len(callback.watch.history) == 3


def test_arguments_go_to_track(tmp_path: Path) -> None:
    memory = gradwatch.sinks.Memory()
    fit(Automatic, adapter(sinks=[memory], every=4, depth=1, run="mine"), tmp_path)
    assert [record.step for record in memory.records] == [4, 8, 12]
