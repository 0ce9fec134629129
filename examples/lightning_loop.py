"""Lightning: one callback, which watches every optimizer of whatever is trained.

Needs ``pip install "gradwatch[interop]"``; run ``python -m examples.lightning_loop``.
"""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

import gradwatch
from gradwatch.integrations.lightning import Callback


def train(steps: int = 10) -> gradwatch.Watch:
    """Train Lightning's own demonstration module and return what was watched."""
    pl.seed_everything(0)
    callback = Callback()
    trainer = pl.Trainer(max_steps=steps, gradient_clip_val=1.0, callbacks=[callback], logger=False)
    trainer.fit(BoringModel())
    assert callback.watch is not None
    return callback.watch


if __name__ == "__main__":
    for record in train().history:
        print(f"{record.step}: {record.norm_before:.4g} -> {record.norm_after:.4g} (limit {record.max_norm})")
