"""Lightning's trainings that several tests watch: automatic optimization, and manual with two optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.interop.library import library
from tests.loops.models import mlp

lightning = library("pytorch_lightning")

LIMIT = 0.5

MARKS = [
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
        self.net = mlp()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer)]

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss: Tensor = (self.net(batch[0]) - 1).square().mean()
        return loss


class Manual(lightning.LightningModule):  # type: ignore[misc]
    """Two networks against each other; the generator's loss writes gradients into the critic as well."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        self.generator = mlp(4, 4)
        self.critic = mlp(4, 1)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.generator, self.critic)]

    def training_step(self, batch: list[Tensor]) -> None:
        generator, critic = self.optimizers()
        (real,) = batch
        self.update(critic, (self.critic(self.generator(real).detach()) - self.critic(real)).mean())
        self.update(generator, -self.critic(self.generator(real)).mean())

    def update(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=LIMIT, gradient_clip_algorithm="norm")
        optimizer.step()


def scaled(scale: float, growth_interval: int = 2000) -> Any:
    """Mixed precision with a GradScaler, which Lightning itself makes on a GPU alone."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=growth_interval)
    return lightning.plugins.MixedPrecision("16-mixed", "cpu", scaler=scaler)


def fit(
    module: Any, callback: Any, folder: Path, batches: int, resume: str | None = None, **settings: Any
) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "enable_checkpointing": False, **settings},
    )
    data = torch.utils.data.TensorDataset(torch.randn(batches * 8, 4))
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=8, shuffle=True), ckpt_path=resume)
