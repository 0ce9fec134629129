"""``KeyboardInterrupt`` raised before a chosen line of gradwatch's, and what is left behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import gradwatch

__all__ = ["Interrupt", "left_behind", "lines_of"]

_PACKAGE = str(Path(gradwatch.__file__).parent)


class Interrupt:
    """Raises before the n-th line that this thread runs in gradwatch; with none, only counts.

    Lines at which a ``with`` is left are among them, where a signal cannot come: CPython handles one after a call
    and where it loops.
    """

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.lines = 0
        self.where = ""

    def __enter__(self) -> Interrupt:
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    def _line(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._line


def lines_of(run: Callable[[], object]) -> int:
    """How many lines of gradwatch's it runs."""
    with Interrupt() as counting:
        run()
    return counting.lines


def left_behind(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What a tracker puts into a process, as far as it can be seen from outside."""
    clip = torch.nn.utils.clip_grad.clip_grad_norm_
    scaler = torch.amp.GradScaler
    return {
        "engine": torch.autograd._engine_run_backward,
        "clip": clip.__closure__[clip.__code__.co_freevars.index("func")].cell_contents,  # type: ignore[attr-defined]
        "scaler": [vars(scaler)[name] for name in ("_unscale_grads_", "_maybe_opt_step", "_check_inf_per_device")],
        "calls": nn.Module._wrapped_call_impl.__code__,
        "pre hooks": (type(optimizer._optimizer_step_pre_hooks), dict(optimizer._optimizer_step_pre_hooks)),
        "post hooks": (type(optimizer._optimizer_step_post_hooks), dict(optimizer._optimizer_step_post_hooks)),
        "parameters": [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()],
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }
