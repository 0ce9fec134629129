"""Lightning: ``Trainer(callbacks=[gradwatch.integrations.lightning.Callback()])``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from gradwatch.integrations.following import Following, named
from gradwatch.watching import Watch

# Both names of the package are in use; whoever trains has loaded theirs.
if "lightning.pytorch" in sys.modules:
    from lightning.pytorch import callbacks
else:
    from pytorch_lightning import callbacks

__all__ = ["Callback"]


class Callback(callbacks.Callback):  # type: ignore[misc]
    """Watches every optimizer of the module that is trained, with automatic and with manual optimization.

    One optimizer is called ``"optimizer"``; of several each bears the name of the attribute of the LightningModule
    that holds all its parameters, or is ``"optimizer0"``, ``"optimizer1"``, ... What the watch has counted is kept
    in Lightning's checkpoints, and a run resumed from one goes on from there.

    Args:
        options: the arguments of ``gradwatch.track``; ``modules`` replaces the children of the LightningModule.

    Raises:
        ArgumentError: an argument cannot be meant as it stands.
    """

    def __init__(self, **options: Any) -> None:
        self._following = Following(options)

    @property
    def watch(self) -> Watch | None:
        """The watch of the present or the last training; None before the first."""
        return self._following.watch

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin: only now has Lightning the optimizers that it asked the module for."""
        self._following.begin(named(trainer.optimizers, pl_module), pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End."""
        self._following.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End."""
        self._following.end()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return self._following.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """From a checkpoint, before training begins."""
        self._following.load_state_dict(state_dict)
