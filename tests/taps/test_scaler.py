"""A GradScaler is seen whatever calls it: what it divides, and which steps it leaves out."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.taps import scaler as tap

SCALE = 1024.0


class Ear:
    """Notes what the tap tells, while its ``with`` lasts."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        self.told: list[str] = []
        self.scales: list[float] = []

    def unscaled(self, optimizer: torch.optim.Optimizer, scale: Tensor) -> None:
        self.told.append("unscaled")
        self.scales.append(float(scale))

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self.told.append("stepping")

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self.told.append("stepped")

    def __enter__(self) -> Ear:
        tap.scalers.listen(self, map(id, self.optimizers))
        return self

    def __exit__(self, *_: object) -> None:
        tap.scalers.stop_listening(self)


def made(fused: bool = False) -> tuple[nn.Linear, torch.optim.SGD, torch.amp.GradScaler]:
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=fused)
    return model, optimizer, torch.amp.GradScaler("cpu", init_scale=SCALE)


def backward(model: nn.Module, scaler: torch.amp.GradScaler, factor: float = 1.0) -> None:
    """A gradient of (1, 2, 2) * factor, a norm of 3 * factor, times the scale."""
    model.zero_grad()
    scaler.scale(model(torch.tensor([1.0, 2.0, 2.0]) * factor).sum()).backward()


def test_what_is_told_of_a_step_and_of_one_left_out() -> None:
    model, optimizer, scaler = made()
    with Ear(optimizer) as ear:
        for factor in (1.0, math.inf):
            backward(model, scaler, factor)
            scaler.step(optimizer)
            scaler.update()
    assert ear.told == ["unscaled", "stepping", "stepped"] * 2
    assert ear.scales == [SCALE, SCALE]


def test_a_check_for_inf_divides_nothing_and_is_not_told() -> None:
    model, optimizer, scaler = made(fused=True)
    with Ear(optimizer) as ear:
        backward(model, scaler)
        scaler.step(optimizer)
        scaler.update()
    assert ear.told == []


def test_methods_bound_before_are_seen() -> None:
    model, optimizer, scaler = made()
    unscale, step = scaler.unscale_, scaler.step
    with Ear(optimizer) as ear:
        backward(model, scaler)
        unscale(optimizer)
        step(optimizer)
    assert ear.told == ["unscaled", "stepping", "stepped"]


def test_torch_is_restored_with_the_last_listener() -> None:
    before = dict(vars(torch.amp.GradScaler))
    with Ear(), Ear():
        assert dict(vars(torch.amp.GradScaler)) != before
    assert dict(vars(torch.amp.GradScaler)) == before


def test_a_method_that_torch_has_not_is_said_and_the_others_are_seen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(tap._SHIMS, "_of_another_version", lambda original: original)
    model, optimizer, scaler = made()
    with caplog.at_level(logging.WARNING, "gradwatch"), Ear(optimizer) as ear:
        backward(model, scaler)
        scaler.step(optimizer)
    assert "does not see GradScaler._of_another_version" in caplog.text
    assert ear.told == ["unscaled", "stepping", "stepped"]


# By way of track: norms are those of the unscaled gradients, whoever unscales them and when.


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("explicit", [False, True])
def test_norms_are_unscaled(fused: bool, explicit: bool) -> None:
    model, optimizer, scaler = made(fused)
    with gradwatch.track(optimizer, model) as watch:
        backward(model, scaler)
        if explicit:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    record = watch["optimizer"]
    assert (record.norm_before, record.norm_after, record.clip_ratio) == (3.0, 3.0, 1.0)
    assert (record.loss_scale, record.skipped, record.backward_passes) == (SCALE, False, 1)
    assert watch.health().internal_errors == 0


@pytest.mark.parametrize("fused", [False, True])
def test_before_is_unscaled_and_not_yet_clipped(fused: bool) -> None:
    model, optimizer, scaler = made(fused)
    with gradwatch.track(optimizer, model) as watch:
        backward(model, scaler)
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.5)
        scaler.step(optimizer)
    record = watch["optimizer"]
    assert record.norm_before == 3.0
    assert record.norm_after == pytest.approx(1.5, rel=1e-6)
    assert (record.max_norm, record.clipped) == (1.5, True)


def test_clipping_what_is_still_scaled_is_reported_in_unscaled_units() -> None:
    model, optimizer, scaler = made(fused=True)
    with gradwatch.track(optimizer, model) as watch:
        backward(model, scaler)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.5 * SCALE)
        scaler.step(optimizer)
    record = watch["optimizer"]
    assert (record.norm_before, record.norm_after) == (3.0, pytest.approx(1.5, rel=1e-6))


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_left_out_has_its_record(fused: bool) -> None:
    model, optimizer, scaler = made(fused)
    with gradwatch.track(optimizer, model) as watch:
        for factor in (1.0, math.inf, 2.0):
            backward(model, scaler, factor)
            scaler.step(optimizer)
            scaler.update()
    first, left_out, last = watch.history
    assert [r.step for r in watch.history] == [1, 2, 3]
    assert [r.skipped for r in watch.history] == [False, True, False]
    assert (left_out.nonfinite, left_out.missing) == (("weight",), ())
    assert not math.isfinite(left_out.norm_before)
    assert math.isnan(left_out.norm_after)
    assert (first.norm_before, last.norm_before, last.loss_scale) == (3.0, 6.0, SCALE / 2)
    fired = [(a.rule, a.severity) for a in watch.alerts if a.state == "firing"]
    assert fired == [("nonfinite", "warning")]


def test_a_scaler_that_is_off_changes_nothing() -> None:
    model, optimizer, _ = made()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with gradwatch.track(optimizer, model) as watch:
        backward(model, scaler)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
    record = watch["optimizer"]
    assert (record.norm_before, record.loss_scale, record.skipped) == (3.0, None, False)


def test_two_optimizers_of_one_scaler_where_one_is_left_out() -> None:
    model, optimizer, scaler = made()
    other, other_optimizer, _ = made()
    with gradwatch.track({"a": optimizer, "b": other_optimizer}) as watch:
        backward(model, scaler)
        backward(other, scaler, math.inf)
        for each in (optimizer, other_optimizer):
            scaler.step(each)
        scaler.update()
    first = watch["a"]
    assert (first.skipped, first.norm_before) == (False, 3.0)
    assert (watch["b"].optimizer, watch["b"].skipped) == ("b", True)
