"""Rectifiers: functions with a flat side, where a unit learns nothing for as long as it stays there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.numbers import same_everywhere, share
from gradwatch.diagnose.site import Finding, Site
from gradwatch.diagnose.slopes import inputs, underflow_of

__all__ = ["READERS"]


def relu(site: Site) -> Finding | None:
    """No unit is active: also a hinge that is satisfied, where it is the loss that goes through it."""
    result = site.tensor("result")
    if result is None or not same_everywhere(result <= 0, site.gradient != 0):
        return None
    if site.place.of_loss(site.node, site.index):
        return Finding("zero-loss", {"share_at_zero": share(result == 0), "elements": result.numel()})
    return Finding("dead-relu", _dead(result == 0))


def rectifier(site: Site) -> Finding | None:
    """A function that is flat far on the left (GELU, threshold, leaky with slope 0): no unit is active."""
    before = site.tensor("self")
    if before is None or not same_everywhere(before < 0, site.gradient != 0):
        return None
    return Finding("dead-relu", {**_dead(before < 0), **inputs(before)})


def threshold(site: Site) -> Finding | None:
    """``F.threshold``: everything is below it."""
    before, limit = site.tensor("self"), site.saved("threshold")
    if before is None or not same_everywhere(before <= limit, site.gradient != 0):
        return None
    kind = "dead-relu" if limit == 0 else "clamped"
    return Finding(kind, {**_dead(before <= limit), **inputs(before)})


def leaky(site: Site) -> Finding | None:
    """A leaky ReLU can only kill a gradient with a slope of 0, or one that is nearly nothing."""
    slope = site.saved("negative_slope")
    return rectifier(site) if slope == 0 else underflow_of(site, torch.tensor(slope))


def exponential_rectifier(site: Site) -> Finding | None:
    """ELU, softplus: so far on the left that the exponential which is their slope is 0, no unit is active."""
    before = site.tensor("self")
    if before is None:
        return None
    slope = torch.exp(before.clamp(max=0))
    if not same_everywhere(slope == 0, site.gradient != 0):
        return underflow_of(site, slope)
    return Finding("dead-relu", {**_dead(slope == 0), **inputs(before)})


def hard_swish(site: Site) -> Finding | None:
    """It is 0 up to -3, with a slope of 0."""
    before = site.tensor("self")
    if before is None or not same_everywhere(before <= -3, site.gradient != 0):
        return None
    return Finding("dead-relu", {**_dead(before <= -3), **inputs(before)})


def _dead(inactive: Tensor) -> dict[str, float | int | str]:
    """Units that are inactive for every sample: channels of an image, else the last dimension."""
    unit = 1 if inactive.dim() in (4, 5) else inactive.dim() - 1
    if inactive.dim() < 2:
        per_unit = inactive.reshape(-1)
    else:
        per_unit = inactive.movedim(unit, 0).reshape(inactive.shape[unit], -1).all(dim=1)
    return {"dead_units": int(per_unit.sum()), "units": per_unit.numel(), "share": share(inactive)}


READERS: dict[str, Callable[[Site], Finding | None]] = {
    "Relu": relu,
    "Gelu": rectifier,
    "Mish": rectifier,
    "Threshold": threshold,
    "LeakyRelu": leaky,
    "Elu": exponential_rectifier,
    "Celu": exponential_rectifier,
    "Softplus": exponential_rectifier,
    "Hardswish": hard_swish,
}
