"""What each tool says of a case, read where its users read it. Each is used as its own pages say."""

from __future__ import annotations

import itertools
import math
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.comparison.cases import STEPS, Case, Known


@dataclass
class Said:
    """Norms of the whole and of ``last``, before clipping and after it; None: it does not say."""

    before: float | None = None
    after: float | None = None
    last: float | None = None
    last_after: float | None = None


def train(case: Case, model: Known, optimizer: Any, clipped: Callable[[Any], None] = lambda norm: None) -> None:
    """A plain loop; ``clipped`` is called with what the clip call returned, right before the step."""
    scaler = torch.amp.GradScaler("cpu", init_scale=case.scale or 1.0, enabled=case.scale is not None)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for _ in range(case.passes):
            scaler.scale(model(torch.ones(4)) / case.passes).backward()
        scaler.unscale_(optimizer)
        clipped(torch.nn.utils.clip_grad_norm_(model.parameters(), case.limit))
        scaler.step(optimizer)
        scaler.update()


def made(case: Case) -> tuple[Known, torch.optim.Optimizer]:
    model = Known(case)
    return model, torch.optim.SGD(model.parameters(), lr=1e-30)


def gradwatch(case: Case, folder: Path) -> Said:
    import gradwatch

    model, optimizer = made(case)
    with gradwatch.track(optimizer, model, rules=[]) as watch:
        train(case, model, optimizer)
    record = watch["optimizer"]
    last = record.modules["last"]
    return Said(record.norm_before, record.norm_after, last.norm_before, last.norm_after)


def clip_grad_norm_(case: Case, folder: Path) -> Said:
    """What torch's own function returns, by which transformers and many loops log."""
    model, optimizer = made(case)
    returned: list[Any] = []
    train(case, model, optimizer, returned.append)
    return Said(float(returned[-1]))


def wandb_watch(case: Case, folder: Path) -> Said:
    """Histograms of each parameter; the norm is that of the middles of their bins."""
    import wandb

    model, optimizer = made(case)
    rows: list[dict[str, Any]] = []
    with wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True)) as run:
        run.watch(model, log="gradients", log_freq=1)
        log = run._log

        def noted(data: dict[str, Any], *rest: Any, **named: Any) -> None:
            rows.append(data)
            log(data, *rest, **named)

        run._log = noted
        train(case, model, optimizer, lambda norm: run.log({}))
    seen: dict[str, float] = {}
    for row in rows:
        seen |= {name: _norm_of(histogram) for name, histogram in row.items()}
    last = [norm for name, norm in seen.items() if name.endswith("last.weight")]
    return Said(math.hypot(*seen.values()), None, last[0] if last else None)


def _norm_of(histogram: Any) -> float:
    bins = histogram.bins
    middles = [(low + high) / 2 for low, high in itertools.pairwise(bins)]
    return math.sqrt(sum(count * middle**2 for count, middle in zip(histogram.histogram, middles, strict=False)))


def lightning_grad_norm(case: Case, folder: Path) -> Said:
    """The utility, in the hook that its authors name."""
    import pytorch_lightning as pl
    from pytorch_lightning.utilities import grad_norm

    from tests.interop.lightning_loops import scaled

    said: list[dict[str, Any]] = []

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Known(case)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-30)

        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = self.model(batch)
            return loss

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            said.append(grad_norm(self.model, 2))

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=case.passes,
        gradient_clip_val=case.limit,
        plugins=[scaled(case.scale)] if case.scale else None,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader([1.0] * STEPS * case.passes * 2, batch_size=2))
    norms = said[-1]
    last = norms.get("grad_2.0_norm/last.weight")
    return Said(float(norms["grad_2.0_norm_total"]), None, None if last is None else float(last))


def transformers_grad_norm(case: Case, folder: Path) -> Said:
    """``grad_norm`` in the Trainer's log."""
    import transformers

    from tests.interop.scaling import with_scaler

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Known(case)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.model(x)}

    model = Model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=case.passes,
        max_grad_norm=case.limit,
        max_steps=STEPS,
        logging_steps=1,
        use_cpu=True,
        fp16=case.scale is not None,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    data = [{"x": torch.ones(())}] * STEPS * case.passes * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-30)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, optimizers=(optimizer, schedule)
    )
    if case.scale:
        with_scaler(trainer.accelerator, case.scale)
    trainer.train()
    return Said([row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row][-1])


def trainscope(case: Case, folder: Path) -> Said:
    """``step`` is called between the clip call and the optimizer's step, given no norm of its user's."""
    from trainscope import TrainScope
    from trainscope.core.config import TrainScopeConfig

    class Last:
        snaps: tuple[dict[str, Any], dict[str, Any]]

        def on_step(self, whole: dict[str, Any], layers: dict[str, Any]) -> None:
            self.snaps = whole, layers

    model, optimizer = made(case)
    scope = TrainScope(model, optimizer, config=TrainScopeConfig(run_dir=str(folder / "scope")))
    scope._callbacks.append(last := Last())
    with scope:
        train(case, model, optimizer, lambda norm: scope.step(1.0))
    whole, layers = last.snaps
    return Said(
        whole["grad_norm_before_clip"], whole["grad_norm_after_clip"], None, layers["last.weight"]["grad_l2_norm"]
    )


def pulsegrad(case: Case, folder: Path) -> Said:
    """The rows of its own database; it has no norm of the whole."""
    os.environ["PULSEGRAD_CONSOLE"] = "off"
    import pulsegrad

    model, optimizer = made(case)
    with pulsegrad.watch(model, optimizer, run_dir=folder / "pulse", k=1):
        train(case, model, optimizer)
    (file,) = (folder / "pulse").rglob("db.sqlite")
    base = sqlite3.connect(file)
    rows = base.execute("select module_id, grad_norm from v_stats_wide order by step").fetchall()
    base.close()
    norms = dict(rows)
    return Said(None, None, None, norms.get("last"))


TOOLS: dict[str, tuple[str, Callable[[Case, Path], Said]]] = {
    "gradwatch": ("gradwatch", gradwatch),
    "`clip_grad_norm_`'s own return": ("torch", clip_grad_norm_),
    "`wandb.watch`": ("wandb", wandb_watch),
    "Lightning's `grad_norm`": ("pytorch_lightning", lightning_grad_norm),
    "transformers' `grad_norm`": ("transformers", transformers_grad_norm),
    "trainscope": ("trainscope", trainscope),
    "PulseGrad": ("pulsegrad", pulsegrad),
}
