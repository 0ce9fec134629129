"""transformers: ``Trainer(..., callbacks=[gradwatch.integrations.transformers.Callback()])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from gradwatch.integrations.following import Following
from gradwatch.watching import Watch

__all__ = ["Callback"]


class Callback(TrainerCallback):  # type: ignore[misc]
    """Watches the optimizer of a Trainer, also one that accumulates, clips, or scales its loss.

    What the watch has counted is kept beside each checkpoint, in ``gradwatch.pt``, and a run resumed from one in
    the Trainer's own folder goes on from there. A Trainer tells its callbacks of no error: after one, watching
    ends with the interpreter, or with the next ``train``.

    Args:
        options: the arguments of ``gradwatch.track``; ``modules`` replaces the parts of the model.

    Raises:
        ArgumentError: an argument cannot be meant as it stands.
    """

    FILE = "gradwatch.pt"

    def __init__(self, **options: Any) -> None:
        self._following = Following(options)

    @property
    def watch(self) -> Watch | None:
        """The watch of the present or the last training; None before the first."""
        return self._following.watch

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin: the Trainer has made its optimizer."""
        kept = _folder(args, state) / self.FILE
        resumes = state.global_step and kept.is_file()
        self._following.load_state_dict(torch.load(kept, weights_only=True) if resumes else {})
        self._following.begin({"optimizer": given["optimizer"]}, given["model"])

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep what was counted with the checkpoint."""
        if self.watch is not None and state.is_world_process_zero:
            torch.save(self._following.state_dict(), _folder(args, state) / self.FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End."""
        self._following.end()


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
