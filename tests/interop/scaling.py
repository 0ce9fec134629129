"""A GradScaler on the CPU for Accelerate, which makes one of its own on an accelerator alone; so does transformers."""

from __future__ import annotations

from typing import Any

import torch


def with_scaler(accelerator: Any, scale: float) -> torch.amp.GradScaler:
    """What ``mixed_precision="fp16"`` sets on a GPU, before anything is prepared."""
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return accelerator.scaler
