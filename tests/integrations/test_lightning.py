"""The callback of Lightning measures what ``track`` does, whoever steps the optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gradwatch
from tests.integrations.same import numbers
from tests.interop.library import library

lightning = library("pytorch_lightning")

pytestmark = [
    pytest.mark.interop,
    # Lightning's own: it calls what torch has deprecated, and advises on the machine that it finds.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning"),
]


class Automatic(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.last = torch.nn.Linear(8, 1)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = (self.last(torch.tanh(self.first(batch[0]))) - 1).square().mean()
        return loss


class Manual(lightning.LightningModule):  # type: ignore[misc]
    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.nn.Linear(4, 4)
        self.critic = torch.nn.Linear(4, 1)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.generator, self.critic)]

    def training_step(self, batch: list[torch.Tensor]) -> None:
        for optimizer, sign in zip(self.optimizers(), (-1, 1), strict=True):
            optimizer.zero_grad()
            self.manual_backward(sign * self.critic(self.generator(batch[0])).mean())
            self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
            optimizer.step()


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
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "enable_checkpointing": False, **settings},
    )
    data = torch.utils.data.TensorDataset(torch.randn(96, 4))
    trainer.fit(module(), torch.utils.data.DataLoader(data, batch_size=8), ckpt_path=resume)
    watch: gradwatch.Watch = callback.watch
    return watch


def adapter(**options: Any) -> Any:
    from gradwatch.integrations.lightning import Callback

    return Callback(**options)


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_clip_val": 0.1}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}],
    ids=str,
)
def test_automatic_optimization(settings: dict[str, Any], tmp_path: Path) -> None:
    own = numbers(fit(Automatic, ByHand("optimizer"), tmp_path, **settings))
    assert numbers(fit(Automatic, adapter(), tmp_path, **settings)) == own
    assert len(own) == 12 // settings.get("accumulate_grad_batches", 1)
    assert set(own[0][6]) == {"first", "last"}


def test_several_optimizers_bear_the_names_of_what_they_hold(tmp_path: Path) -> None:
    own = numbers(fit(Manual, ByHand("generator", "critic"), tmp_path))
    assert numbers(fit(Manual, adapter(), tmp_path)) == own
    assert [entry[0] for entry in own[:2]] == ["generator", "critic"]


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    class Keeping(Automatic):
        def on_train_epoch_end(self) -> None:
            self.trainer.save_checkpoint(tmp_path / f"{self.current_epoch}.ckpt")

    fit(Keeping, adapter(), tmp_path, max_epochs=2)
    again = fit(Automatic, adapter(), tmp_path, resume=str(tmp_path / "0.ckpt"), max_epochs=2)
    assert [record.step for record in again.history] == list(range(13, 25))


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
