"""Lightning, unmodified: automatic optimization computes the gradients inside ``step``, manual before it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.interop.library import library
from tests.interop.probe import Probe
from tests.loops.models import mlp
from tests.loops.run import Run, conformance

lightning = library("pytorch_lightning")

pytestmark = [
    pytest.mark.interop,
    # Lightning's own: it calls what torch has deprecated, and advises on the machine that it finds.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
]

STEPS, LIMIT = 6, 0.5


class Tracking(lightning.Callback):  # type: ignore[misc]
    """Tracks while Lightning trains: only then does it have the optimizers that it asked the module for."""

    def __init__(self, run: Run, *names: str) -> None:
        self.run = run
        self.names = names
        self.open = ExitStack()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        optimizers = dict(zip(self.names, trainer.optimizers, strict=True))
        self.tracker = self.open.enter_context(self.run.track(optimizers, pl_module))
        self.probe = self.open.enter_context(
            Probe(self.run, optimizers, closures=pl_module.automatic_optimization)
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.open.close()
        assert self.tracker.watch is None or self.tracker.watch.alerts == []


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

    def configure_gradient_clipping(self, *given: Any, **named: Any) -> None:
        """Lightning calls this last inside the closure: what it leaves is what the optimizer takes."""
        super().configure_gradient_clipping(*given, **named)
        self.trainer.callbacks[0].probe.consumed("optimizer")


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


def fit(module: Any, tracking: Tracking, folder: Path, batches: int, **settings: Any) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[tracking],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    data = torch.utils.data.TensorDataset(torch.randn(batches * 8, 4))
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=8, shuffle=True))


@pytest.mark.parametrize("accumulated", [1, 3])
@conformance
def test_automatic_optimization(run: Run, accumulated: int, tmp_path: Path) -> None:
    tracking = Tracking(run, "optimizer")
    settings = {"gradient_clip_val": LIMIT, "accumulate_grad_batches": accumulated}
    fit(Automatic(), tracking, tmp_path, STEPS * accumulated, **settings)
    truths = tracking.tracker.truths
    assert len(truths) == STEPS
    assert {truth.passes for truth in truths} == {accumulated}
    assert {truth.max_norm for truth in truths} == {LIMIT}
    assert any(truth.clipped for truth in truths)
    assert set(truths[0].after.modules) == {"net.0", "net.3"}


@conformance
def test_manual_optimization(run: Run, tmp_path: Path) -> None:
    tracking = Tracking(run, "generator_adam", "critic_adam")
    fit(Manual(), tracking, tmp_path, STEPS)
    truths = tracking.tracker.truths
    assert [truth.optimizer for truth in truths] == ["critic_adam", "generator_adam"] * STEPS
    assert {truth.max_norm for truth in truths} == {LIMIT}
    assert {truth.passes for truth in truths if truth.optimizer == "generator_adam"} == {1}
    assert [truth.passes for truth in truths if truth.optimizer == "critic_adam"] == [1] + [2] * (STEPS - 1)
