"""Imported once for all programs of ``screens``: what they use, where it is there."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from importlib import import_module

os.environ["OMP_NUM_THREADS"] = "1"
# A bar is drawn at each step, and not by the clock.
os.environ["TQDM_MININTERVAL"] = "0"
warnings.simplefilter("ignore")
for name in ("rich.progress", "tqdm", "pytorch_lightning", "transformers", "gradwatch"):
    with contextlib.suppress(ImportError):
        import_module(name)
# Some log to the standard error that there is when they are imported.
for name in ("pytorch_lightning", "lightning", "transformers"):
    logging.getLogger(name).handlers.clear()
# The first use of these imports more.
with contextlib.suppress(ImportError, AttributeError):
    import torch

    torch.set_num_threads(1)
    _ = [torch.optim.SGD, torch.utils.data.DataLoader, import_module("torch._dynamo")]
    _ = [getattr(import_module("transformers"), name) for name in ("Trainer", "GPT2LMHeadModel")]
