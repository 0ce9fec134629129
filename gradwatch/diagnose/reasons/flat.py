"""Operations that are flat where a gradient came in, or nearly so: of which kind, and by what numbers."""

from __future__ import annotations

import math

import torch

from gradwatch.diagnose.graph.saved import signed
from gradwatch.diagnose.graph.walk import row_of
from gradwatch.diagnose.look.numbers import extent, largest, share
from gradwatch.diagnose.look.site import Evidence, Finding, Site
from gradwatch.diagnose.reasons.factors import LEFT, product

__all__ = [
    "RULED_OUT",
    "activation",
    "attention",
    "clamp",
    "distance",
    "flat",
    "gates",
    "loss",
    "normaliser",
    "softmax",
    "undecided",
]

# What a nonzero gradient that arrives at an operation of the loss's graph rules out by itself.
RULED_OUT = "unused, no-grad, detached, zero-loss"

# A unit whose slope is below this has lost a decade or more.
_FLAT_SLOPE = 0.1

_ALIKE = "what came in is nearly the same for all candidates"
_ALONE = "it normalises over one element: what it makes does not depend on what comes in"


def undecided(site: Site) -> Finding:
    """What is known where nothing decides."""
    if site.left:
        return Finding("unknown", {"reason": "what was saved does not decide"})
    reasons = {
        "flat": "its formula gives exactly 0 for every gradient here, and nothing more is known of it",
        "cancelled": "its formula gives something for other gradients, and nothing more is known of it",
    }
    unasked = "its formula cannot be asked: nothing is known of it"
    return Finding(
        "unknown", {"reason": site.row.reason or reasons.get(site.answer, unasked), "ruled_out": RULED_OUT}
    )


def flat(site: Site) -> Finding:
    """Flat wherever a gradient came in, or nearly so."""
    return Finding(site.kind, {**_units(site), **_values(site)}) if site.kind else undecided(site)


def _units(site: Site) -> Evidence:
    """Units that are flat for every sample: channels of an image, else the last dimension; a loss has elements."""
    slopes = site.probe.slopes(site.index)
    if slopes is None:
        return {}
    if site.left:
        return {"share_flat": share(slopes.abs() < _FLAT_SLOPE)}
    dead = site.in_part(slopes) == 0
    if site.kind == "zero-loss":
        return {"share_at_0": share(dead), "elements": dead.numel()}
    unit = 1 if dead.dim() in (4, 5) else dead.dim() - 1
    per_unit = dead.reshape(-1)
    if dead.dim() > 1:
        per_unit = dead.movedim(unit, 0).reshape(dead.shape[unit], -1).all(dim=1)
    name = "share_saturated" if site.row.flat.startswith("saturated") else "share"
    numbers: Evidence = {name: share(dead), "dead_units": int(per_unit.sum()), "units": per_unit.numel()}
    return {**numbers, "largest_slope": largest(slopes * dead)} if name == "share_saturated" else numbers


def _values(site: Site) -> Evidence:
    """The range of what came in or was made, and of a tanh the share of inputs that are beyond 9 in size."""
    result = site.tensor(site.row.result)
    before = site.tensor(site.row.saved[0]) if site.row.saved else None
    if result is not None and not site.left and site.row.flat == "saturated-tanh":
        beyond_9 = torch.tensor(9.0, dtype=torch.float64).tanh().to(result.dtype)
        return {"share_beyond_9": share(result.abs() >= beyond_9)}
    if result is not None and not site.left and site.row.flat == "saturated-sigmoid":
        return {"share_at_0": share(result <= 0), "share_at_1": share(result >= 1)}
    values, name = (result, "output") if before is None else (before, "input")
    if values is None or not values.is_floating_point():
        return {}
    low, high, _ = extent(values)
    return {f"{name}_min": low, f"{name}_max": high}


def clamp(site: Site) -> Finding:
    """Beyond its limits; of a loss that is cut off below 0, a hinge that is kept."""
    low, high = (site.saved(limit) if isinstance(limit, str) else limit for limit in site.row.limits)
    before = site.tensor("self")
    found = flat(site)
    if before is None or (low is None and high is None):
        return found
    # A loss is cut off at 0, where nothing is left to learn; anything else is a limit that somebody set.
    kind = found.kind if isinstance(low, (int, float)) and low == 0 and high is None else site.row.flat
    shares: Evidence = {
        "share_below": 0.0 if low is None else share(before <= low),
        "share_above": 0.0 if high is None else share(before >= high),
    }
    return Finding(kind, {**found.evidence, **shares})


def activation(site: Site) -> Finding:
    """A second input is a slope that is learned, as PReLU's is: a factor."""
    return product(site) if site.index else flat(site)


def distance(site: Site) -> Finding:
    """A length, a power or an absolute value of exactly 0; the power 0 is constant whatever comes in."""
    if site.left:
        return Finding(site.kind, _values(site)) if site.in_loss else undecided(site)
    if site.row.exponent and site.saved(site.row.exponent) == 0:
        return Finding("constant", {"reason": "the power 0 is 1 whatever comes in"})
    return flat(site)


def softmax(site: Site) -> Finding:
    """Every row that a gradient came in for is one-hot, or has one candidate only.

    A softmax hands on differences between its candidates' gradients: where these are alike little is left,
    whatever its slope.
    """
    result, dim, shares = site.tensor(site.row.result), signed(site.saved("dim") or 0), site.row.shares
    if result is None or shares is None:
        return flat(site)
    if result.shape[dim] == 1:
        return Finding("constant", {"candidates": 1, "reason": "a softmax over one class is 1 whatever comes in"})
    made = shares(result.double())
    live = (site.gradient != 0).any(dim=dim, keepdim=True)
    if site.left and largest(made * (1 - made) * live) >= LEFT:
        return Finding("unknown", {"reason": _ALIKE, "ruled_out": "saturated-sigmoid"})
    kind = "masked" if site.row.as_loss == "" and _scores_are_masked(site) else flat(site).kind
    evidence: Evidence = {"share_one_hot": share((made == 1).any(dim=dim)), "candidates": result.shape[dim]}
    return Finding(kind, evidence)


def _scores_are_masked(site: Site) -> bool:
    """By a mask that leaves one candidate, rather than by one score that towers above the rest."""
    producer = site.graph.producer(site.node, site.index)
    row = None if producer is None else row_of(producer)
    return row is not None and row.flat == "masked"


def attention(site: Site) -> Finding:
    """Fused: query or key is zero, there is one token only, or it is flat."""
    query, key = site.tensor("query"), site.tensor("key")
    if site.index > 1 or query is None or key is None:
        return flat(site)
    if largest(key if site.index == 0 else query) == 0.0:
        return product(site)
    if key.shape[-2] == 1:
        return Finding("constant", {"candidates": 1, "reason": "a softmax over one token is 1 whatever comes in"})
    return flat(site)


def normaliser(site: Site) -> Finding:
    """Its weight is 0; or it makes the same of everything, as over one element, but for rounding."""
    weight, before = site.tensor("weight"), site.tensor("input")
    if site.left:
        return Finding("constant", {"reason": _ALONE}) if _is_alone(site) else undecided(site)
    if site.index == 0 and weight is not None and largest(weight) == 0.0:
        return product(site)
    if site.index == 0:
        return Finding("constant", {"reason": _ALONE})
    same = before is not None and extent(before).low == extent(before).high
    reason = "a constant input is normalised to 0" if same else "what it normalises comes out as 0"
    return Finding("zero-input", {**_values(site), "reason": reason})


def _is_alone(site: Site) -> bool:
    shape, groups = site.saved("normalized_shape"), site.saved("group")
    if isinstance(groups, int):
        return bool(site.saved("C") * site.saved("HxW") == groups)
    return shape is not None and math.prod(shape) == 1


def gates(site: Site) -> Finding:
    """A fused recurrent layer: its input or its weight is zero, or its gates are shut."""
    towards = site.graph.weight(site.node, site.index)
    before = site.tensor("input")
    if towards is not None and before is not None and largest(before) == 0.0:
        return Finding("zero-input", {"largest_input": 0.0})
    weights = [site.tensor(name) for name in ("weight0", "weight1")]
    for weight, toward in zip(weights, (0, 5), strict=True):
        if site.index == toward and weight is not None and largest(weight) == 0.0:
            return Finding("zero-weight", {"largest_weight": 0.0})
    return Finding("saturated-sigmoid", {"reason": "its gates are at 0 or 1 in every unit and step"})


def loss(site: Site) -> Finding:
    """Satisfied exactly or nearly so, weighed by zero, or with every target left out."""
    prediction, target, ignored = site.tensor("self"), site.tensor("target"), site.saved("ignore_index")
    evidence: Evidence = {"elements": site.gradient.numel() if prediction is None else prediction.numel()}
    if target is not None and ignored is not None:
        evidence["share_ignored"] = share(target == ignored)
    elif prediction is not None and target is not None and prediction.shape == target.shape:
        evidence["largest_difference"] = largest(prediction.double() - target.double())
    return Finding("zero-loss", evidence)
