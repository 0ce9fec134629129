"""Lightning: the Trainer has the module's optimizers once training starts, and tells its callbacks.

Needs ``pip install "gradwatch[interop]"``; run ``python -m examples.lightning_loop``.
"""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

import gradwatch


class Gradwatch(pl.Callback):
    """Watch the optimizer of whatever is trained; several are given to ``track`` as a mapping from names."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watch = gradwatch.track(trainer.optimizers[0], pl_module).__enter__()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watch.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.watch.close()


def train(steps: int = 10) -> gradwatch.Watch:
    """Train Lightning's own demonstration module and return what was watched."""
    pl.seed_everything(0)
    callback = Gradwatch()
    trainer = pl.Trainer(max_steps=steps, gradient_clip_val=1.0, callbacks=[callback], logger=False)
    trainer.fit(BoringModel())
    return callback.watch


if __name__ == "__main__":
    for record in train().history:
        print(f"{record.step}: {record.norm_before:.4g} -> {record.norm_after:.4g} (limit {record.max_norm})")
