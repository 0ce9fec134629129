"""Elementwise functions: where their slope is exactly zero, and why.

Each reader gets a site and says what it proves; None where the slope explains nothing. What is required is that
the slope is zero wherever a gradient came in: elsewhere it does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.numbers import extent, largest, same_everywhere, share
from gradwatch.diagnose.saved import signed
from gradwatch.diagnose.site import Finding, Site

__all__ = ["READERS", "inputs", "steps", "underflow", "underflow_of"]

# Beyond this the slope of tanh is below half a unit in the last place of float32 at 1.
TANH_FLAT = 9.0


def tanh(site: Site) -> Finding | None:
    """Every output sits at -1 or 1, where the slope rounds to zero."""
    result = site.tensor("result")
    if result is None:
        return None
    if not same_everywhere(result.abs() >= 1, site.gradient != 0):
        return underflow_of(site, 1 - result.double().square())
    size = result.abs()
    evidence: dict[str, float | int | str] = {
        "share_saturated": share(size >= 1),
        "largest_slope": float((1 - result.double().square())[site.gradient != 0].max()),
        "units": result.numel(),
    }
    if result.dtype in (torch.float32, torch.float64):
        evidence["share_beyond_9"] = share(size >= torch.tensor(math.tanh(TANH_FLAT), dtype=result.dtype))
    return Finding("saturated-tanh", evidence)


def sigmoid(site: Site) -> Finding | None:
    """Every output sits at 0 or 1."""
    result = site.tensor("result")
    if result is None:
        return None
    if not same_everywhere((result <= 0) | (result >= 1), site.gradient != 0):
        return underflow_of(site, result.double() * (1 - result.double()))
    return Finding("saturated-sigmoid", _ends(result <= 0, result >= 1))


def gated_by_sigmoid(site: Site) -> Finding | None:
    """SiLU: its sigmoid is exactly 0, so that output and slope both are."""
    before = site.tensor("self")
    if before is None:
        return None
    gate = torch.sigmoid(before)
    if not same_everywhere(gate == 0, site.gradient != 0):
        return None
    return Finding("saturated-sigmoid", {**_ends(gate == 0, gate >= 1), **inputs(before)})


def log_sigmoid(site: Site) -> Finding | None:
    """Flat far on the right; at the end of a loss that is a loss which is satisfied."""
    before = site.tensor("self")
    if before is None or not same_everywhere(torch.sigmoid(-before) == 0, site.gradient != 0):
        return None
    kind = "zero-loss" if site.place.linear_above(site.node) else "saturated-sigmoid"
    return Finding(kind, {"share_saturated": share(torch.sigmoid(-before) == 0), **inputs(before)})


def glu(site: Site) -> Finding | None:
    """The gating half of a GLU is shut: its sigmoid is exactly 0."""
    before, dim = site.tensor("self"), site.saved("dim")
    if before is None:
        return None
    dim = signed(dim)
    value, gate = before.chunk(2, dim=dim)
    shut = torch.sigmoid(gate)
    if not same_everywhere((shut == 0) | ((value == 0) & (shut >= 1)), site.gradient != 0):
        return None
    return Finding("saturated-sigmoid", {**_ends(shut == 0, shut >= 1), **inputs(gate)})


def exponential_tail(site: Site) -> Finding | None:
    """exp: far on the left the slope is an exponential that is too small for its type."""
    before = site.tensor("self")
    slope = site.tensor("result") if before is None else torch.exp(before.clamp(max=0))
    if slope is None:
        return None
    flat = slope == 0
    if not same_everywhere(flat, site.gradient != 0):
        return underflow_of(site, slope)
    return Finding(
        "underflow", {"share_underflown": share(flat), **(inputs(before) if before is not None else {})}
    )


def hard(low: str | float | None, high: str | float | None) -> Callable[[Site], Finding | None]:
    """A function that is flat outside two limits: numbers, or the names under which they are saved."""

    def reader(site: Site) -> Finding | None:
        before = site.tensor("self")
        if before is None:
            return None
        limits = [site.saved(limit) if isinstance(limit, str) else limit for limit in (low, high)]
        return _clamped(site, before, *limits)

    return reader


def _clamped(
    site: Site, before: Tensor, low: Tensor | float | None, high: Tensor | float | None
) -> Finding | None:
    nowhere = torch.zeros_like(before, dtype=torch.bool)
    # torch itself lets the gradient through at a limit of a clamp and not at one of a hardtanh: <= covers both,
    # and where one of the clamp's is hit exactly the gradient would not have turned zero.
    below = nowhere if low is None else before <= low
    above = nowhere if high is None else before >= high
    if not same_everywhere(below | above, site.gradient != 0):
        return None
    evidence = {"share_below": share(below), "share_above": share(above), **inputs(before)}
    hinge = high is None and isinstance(low, (int, float)) and low == 0
    if hinge and site.place.of_loss(site.node, site.index):
        return Finding("zero-loss", {"share_at_zero": share(below), "elements": before.numel()})
    return Finding("clamped", evidence)


def shrink(site: Site) -> Finding | None:
    """Shrinkage: flat within its limit."""
    before, limit = site.tensor("self"), site.saved("lambd")
    if before is None or not same_everywhere(before.abs() <= limit, site.gradient != 0):
        return None
    return Finding("clamped", {"share_within": share(before.abs() <= limit), **inputs(before)})


def at_zero(site: Site) -> Finding | None:
    """Abs and powers: no slope at exactly 0, as in a loss that is satisfied."""
    before = site.tensor("self")
    if before is None:
        return None
    exponent = site.saved("exponent")
    if isinstance(exponent, (int, float)) and exponent == 0:
        return Finding("unknown", {"reason": "the power 0 is constant", "ruled_out": "zero-input, underflow"})
    if not same_everywhere(before == 0, site.gradient != 0):
        return underflow_of(site, _power_slope(before, exponent))
    return Finding(_kind_at_zero(site), {"share_at_zero": share(before == 0), "elements": before.numel()})


def length(site: Site) -> Finding | None:
    """A norm or a standard deviation of exactly 0, where torch takes the slope to be 0."""
    result = site.tensor("result")
    if result is None or not same_everywhere(result == 0, site.gradient != 0):
        return None
    return Finding(_kind_at_zero(site), {"share_at_zero": share(result == 0), "elements": result.numel()})


def _kind_at_zero(site: Site) -> str:
    """A loss of exactly 0, or a layer that something of exactly 0 enters."""
    ends = site.place.linear_above(site.node) and not site.place.in_network(site.node)
    return "zero-loss" if ends else "zero-input"


def steps(site: Site) -> Finding | None:
    """round, floor, sign: constant between steps, so no gradient ever comes through."""
    return Finding(
        "unknown", {"reason": "constant between its steps", "ruled_out": "underflow, zero-input, masked"}
    )


def underflow_of(site: Site, slope: Tensor | None) -> Finding | None:
    """The product of gradient and slope is not zero, but too small for the type that it is kept in."""
    if slope is None or site.outgoing is None:
        return None
    return underflow(site.gradient.double() * slope.double(), site.outgoing.dtype)


def underflow(product: Tensor, kept_in: torch.dtype) -> Finding | None:
    """What the product is in float64, where the type that it is kept in made it zero."""
    size, info = largest(product), torch.finfo(kept_in)
    # Devices may round what is below the smallest *normal* number to zero; a smaller one, subnormal, is the last.
    if not 0.0 < size < info.tiny:
        return None
    smallest = info.tiny * info.eps
    return Finding("underflow", {"largest_product": size, "smallest_of_type": smallest, "dtype": info.dtype})


def _power_slope(before: Tensor, exponent: object) -> Tensor | None:
    if not isinstance(exponent, (int, float)):
        return None
    wide = before.double()
    return exponent * wide.pow(exponent - 1)


def _ends(at_zero: Tensor, at_one: Tensor) -> dict[str, float | int | str]:
    return {
        "share_at_0": share(at_zero),
        "share_at_1": share(at_one),
        "share_saturated": share(at_zero | at_one),
        "units": at_zero.numel(),
    }


def inputs(before: Tensor) -> dict[str, float | int | str]:
    """The range of what came in, as evidence."""
    low, high, _ = extent(before)
    return {"input_min": low, "input_max": high}


READERS: dict[str, Callable[[Site], Finding | None]] = {
    "Tanh": tanh,
    "Sigmoid": sigmoid,
    "Silu": gated_by_sigmoid,
    "LogSigmoid": log_sigmoid,
    "Glu": glu,
    "Exp": exponential_tail,
    "Exp2": exponential_tail,
    "Hardtanh": hard("min_val", "max_val"),
    "Clamp": hard("min", "max"),
    "ClampMin": hard("min", None),
    "ClampMax": hard(None, "max"),
    "Hardsigmoid": hard(-3.0, 3.0),
    "Softshrink": shrink,
    "Hardshrink": shrink,
    "Abs": at_zero,
    "LinalgVectorNorm": length,
    "Norm": length,
    "Std": length,
    "Pow": at_zero,
    "Round": steps,
    "Floor": steps,
    "Ceil": steps,
    "Trunc": steps,
    "Sign": steps,
    "Sgn": steps,
    "Heaviside": steps,
    "Bernoulli": steps,
}
