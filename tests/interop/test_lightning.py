"""Lightning, unmodified: automatic optimization computes the gradients inside ``step``, manual before it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.interop import lightning_loops
from tests.interop.lightning_loops import LIMIT, Manual, fit, lightning, scaled
from tests.interop.probe import Probe
from tests.loops.run import Run, conformance

pytestmark = lightning_loops.MARKS

STEPS = 6


class Tracking(lightning.Callback):  # type: ignore[misc]
    """Tracks while Lightning trains: only then does it have the optimizers that it asked the module for."""

    def __init__(self, run: Run, *names: str) -> None:
        self.run = run
        self.names = names
        self.open = ExitStack()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        optimizers = dict(zip(self.names, trainer.optimizers, strict=True))
        self.tracker = self.open.enter_context(self.run.track(optimizers, pl_module))
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        closures = pl_module.automatic_optimization
        self.probe = self.open.enter_context(Probe(self.run, optimizers, closures=closures, scaler=scaler))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.open.close()


class Automatic(lightning_loops.Automatic):
    def configure_gradient_clipping(self, *given: Any, **named: Any) -> None:
        """Lightning calls this last before the step: what it leaves is what the optimizer takes."""
        super().configure_gradient_clipping(*given, **named)
        self.trainer.callbacks[0].probe.consumed("optimizer")


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
    assert tracking.tracker.watch is None or tracking.tracker.watch.alerts == []


@pytest.mark.parametrize("accumulated", [1, 3])
@conformance
def test_automatic_optimization_with_a_scaler(run: Run, accumulated: int, tmp_path: Path) -> None:
    """The first scale is too large for float16, so that steps are left out until it fits."""
    tracking = Tracking(run, "optimizer")
    settings = {"gradient_clip_val": LIMIT, "accumulate_grad_batches": accumulated, "plugins": [scaled(2.0**18)]}
    fit(Automatic(), tracking, tmp_path, STEPS * accumulated, **settings)
    truths = tracking.tracker.truths
    assert len(truths) == STEPS
    assert [truth.skipped for truth in truths[:1] + truths[-1:]] == [True, False]
    assert {truth.passes for truth in truths} == {accumulated}
    assert len({truth.loss_scale for truth in truths}) > 1


@conformance
def test_manual_optimization(run: Run, tmp_path: Path) -> None:
    tracking = Tracking(run, "generator_adam", "critic_adam")
    fit(Manual(), tracking, tmp_path, STEPS)
    truths = tracking.tracker.truths
    assert [truth.optimizer for truth in truths] == ["critic_adam", "generator_adam"] * STEPS
    assert {truth.max_norm for truth in truths} == {LIMIT}
    assert {truth.passes for truth in truths if truth.optimizer == "generator_adam"} == {1}
    assert [truth.passes for truth in truths if truth.optimizer == "critic_adam"] == [1] + [2] * (STEPS - 1)
    assert tracking.tracker.watch is None or tracking.tracker.watch.alerts == []
