"""An operation that was given a gradient and handed on nothing, or next to nothing: why.

What is asked is what becomes of a gradient *where one came in*: elsewhere it does not matter. The operation's
answer (``look.probe``), times its family (``graph.catalogue``), is the kind of the cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.graph.catalogue import Family
from gradwatch.diagnose.graph.saved import signed
from gradwatch.diagnose.graph.walk import row_of
from gradwatch.diagnose.look.numbers import extent, largest, share
from gradwatch.diagnose.look.site import Evidence, Finding, Site
from gradwatch.diagnose.reasons.factors import LEFT, product

__all__ = ["LEFT", "why_lost"]

# What a nonzero gradient that arrives at an operation of the loss's graph rules out by itself.
_RULED_OUT = "unused, no-grad, detached, zero-loss"

# Products with a gradient above this do not underflow in float32 unless the other factor is nothing either.
_NO_UNDERFLOW = 1e-19

# A unit whose slope is below this has lost a decade or more.
_FLAT_SLOPE = 0.1

_ALIKE = "what came in is nearly the same for all candidates"
_ALONE = "it normalises over one element: what it makes does not depend on what comes in"
_ONE_OF_SEVERAL = "of several parts that were joined this one had lost it further on, behind the largest of them"


def why_lost(site: Site) -> Finding:
    """The kind of the cause; ``unknown``, with what was ruled out, where nothing decides."""
    arrives, left = max(map(largest, site.incoming), default=0.0), site.left
    found = _why_faint(site) if left else _why_zero(site, arrives)
    numbers: Evidence = {"operation": site.node.name(), "input": site.index, "largest_incoming": arrives}
    if left:
        numbers |= {"largest_outgoing": left, "largest_slope": left / arrives}
    return Finding(found.kind, {**numbers, **found.evidence})


def _why_zero(site: Site, arrives: float) -> Finding:
    if site.handed_on is not None and site.handed_on.numel() == 0:
        return _nothing_left(site)
    family, answer = site.row.family, site.answer
    if answer == "underflow":
        return Finding("underflow", _of_type(site))
    if answer == "unasked" and family != "overwriting" and arrives < _NO_UNDERFLOW:
        return _undecided(site)
    if answer == "cancelled" and family not in ("selection", "overwriting", "view"):
        reason = "what came in is alike wherever it goes: it cancels exactly"
        return Finding("unknown", {"reason": reason, "ruled_out": f"{_RULED_OUT}, underflow"})
    return _BY_FAMILY.get(family, _undecided)(site)


def _why_faint(site: Site) -> Finding:
    if site.row.family in ("joint", "overwriting", "selection", "view"):
        return Finding("unknown", {"reason": _ONE_OF_SEVERAL})
    return _BY_FAMILY[site.row.family](site) if site.row.family in _SHRINK else _undecided(site)


def _of_type(site: Site) -> Evidence:
    kept_in = (site.gradient if site.handed_on is None else site.handed_on).dtype
    info = torch.finfo(kept_in)
    return {"smallest_of_type": info.tiny * info.eps, "dtype": info.dtype}


def _nothing_left(site: Site) -> Finding:
    """The input is empty: an empty mask or index left no element of it, or no sample came here."""
    teaches = site.sides.of(site.node) == "loss" and not _was_selected(site)
    return Finding("zero-loss" if teaches else "masked", {"elements": 0, "reason": "nothing was selected"})


def _was_selected(site: Site) -> bool:
    """Whether what the network gave was cut down to nothing, rather than a loss made of it."""
    node = site.graph.producer(site.node, site.index)
    while node is not None and (row := row_of(node)) is not None and row.family != "selection":
        node = site.graph.producer(node, 0) if site.graph.inputs[node] else None
    return node is not None and site.sides.of(node) != "loss"


def _undecided(site: Site) -> Finding:
    if site.left:
        return Finding("unknown", {"reason": "what was saved does not decide"})
    reasons = {
        "flat": "its formula gives exactly 0 for every gradient here, and nothing more is known of it",
        "cancelled": "its formula gives something for other gradients, and nothing more is known of it",
    }
    unasked = "its formula cannot be asked: nothing is known of it"
    return Finding(
        "unknown", {"reason": site.row.reason or reasons.get(site.answer, unasked), "ruled_out": _RULED_OUT}
    )


def _flat(site: Site) -> Finding:
    """Flat wherever a gradient came in, or nearly so."""
    kind = site.row.as_loss if site.row.as_loss and site.sides.of(site.node) == "loss" else site.row.flat
    return Finding(kind, {**_units(site), **_values(site)}) if kind else _undecided(site)


def _units(site: Site) -> Evidence:
    """Units that are flat for every sample: channels of an image, else the last dimension."""
    slopes = site.probe.slopes(site.index)
    if slopes is None:
        return {}
    if site.left:
        return {"share_flat": share(slopes.abs() < _FLAT_SLOPE)}
    flat = site.in_part(slopes) == 0
    unit = 1 if flat.dim() in (4, 5) else flat.dim() - 1
    per_unit = flat.reshape(-1)
    if flat.dim() > 1:
        per_unit = flat.movedim(unit, 0).reshape(flat.shape[unit], -1).all(dim=1)
    name = "share_saturated" if site.row.flat.startswith("saturated") else "share"
    numbers: Evidence = {name: share(flat), "dead_units": int(per_unit.sum()), "units": per_unit.numel()}
    return {**numbers, "largest_slope": largest(slopes * flat)} if name == "share_saturated" else numbers


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


def _clamp(site: Site) -> Finding:
    """Beyond its limits; of a loss that is cut off below 0, a hinge that is kept."""
    low, high = (site.saved(limit) if isinstance(limit, str) else limit for limit in site.row.limits)
    before = site.tensor("self")
    found = _flat(site)
    if before is None or (low is None and high is None):
        return found
    # A loss is cut off at 0, where nothing is left to learn; anything else is a limit that somebody set.
    kind = found.kind if isinstance(low, (int, float)) and low == 0 and high is None else site.row.flat
    shares: Evidence = {
        "share_below": 0.0 if low is None else share(before <= low),
        "share_above": 0.0 if high is None else share(before >= high),
    }
    return Finding(kind, {**found.evidence, **shares})


def _activation(site: Site) -> Finding:
    """A second input is a slope that is learned, as PReLU's is: a factor."""
    return product(site) if site.index else _flat(site)


def _distance(site: Site) -> Finding:
    """A length, a power or an absolute value of exactly 0; the power 0 is constant whatever comes in."""
    if site.left:
        return Finding("zero-loss", _values(site)) if site.sides.of(site.node) == "loss" else _undecided(site)
    if site.row.exponent and site.saved(site.row.exponent) == 0:
        return Finding("constant", {"reason": "the power 0 is 1 whatever comes in"})
    return _flat(site)


def _steps(site: Site) -> Finding:
    """Constant between its steps; a sampler that is not the nearest's is flat outside of what it samples only."""
    if site.saved("interpolation_mode") == 0:
        return _left_out(site)
    return Finding("constant", {"reason": "it is constant between its steps, so no gradient ever comes through"})


def _left_out(site: Site) -> Finding:
    """A mask, a selection or a slice leaves out all that a gradient came in for; of a loss, all of the loss."""
    kind = "zero-loss" if site.sides.of(site.node) == "loss" else "masked"
    if site.row.moves != "cuts" or site.part is None or site.handed_on is None:
        return Finding(kind, {"share_masked": 1.0, "elements": site.gradient.numel()})
    elements = site.part.of(site.handed_on).numel()
    return Finding("masked", {"share_masked": 1.0, "elements": elements, "reason": "a slice leaves it out"})


def _selection(site: Site) -> Finding:
    """A mask, or of two tensors the other one: a constant one is a limit, and 0 in a loss is that of a hinge."""
    if len(site.row.saved) < 2:
        return _left_out(site)
    other = site.tensor(site.row.saved[1 - site.index])
    if site.graph.inputs[site.node][1 - site.index][0] is not None:
        return Finding("masked", {"share_not_taken": 1.0})
    kept = site.sides.of(site.node) == "loss" and other is not None and largest(other) == 0.0
    return Finding("zero-loss" if kept else "clamped", {"share_not_taken": 1.0, "elements": site.gradient.numel()})


def _softmax(site: Site) -> Finding:
    """Every row that a gradient came in for is one-hot, or has one candidate only.

    A softmax hands on differences between its candidates' gradients: where these are alike little is left,
    whatever its slope.
    """
    result, dim, shares = site.tensor(site.row.result), signed(site.saved("dim") or 0), site.row.shares
    if result is None or shares is None:
        return _flat(site)
    if result.shape[dim] == 1:
        return Finding("constant", {"candidates": 1, "reason": "a softmax over one class is 1 whatever comes in"})
    made = shares(result.double())
    live = (site.gradient != 0).any(dim=dim, keepdim=True)
    if site.left and largest(made * (1 - made) * live) >= LEFT:
        return Finding("unknown", {"reason": _ALIKE, "ruled_out": "saturated-sigmoid"})
    kind = "masked" if site.row.as_loss == "" and _scores_are_masked(site) else _flat(site).kind
    evidence: Evidence = {"share_one_hot": share((made == 1).any(dim=dim)), "candidates": result.shape[dim]}
    return Finding(kind, evidence)


def _scores_are_masked(site: Site) -> bool:
    """By a mask that leaves one candidate, rather than by one score that towers above the rest."""
    producer = site.graph.producer(site.node, site.index)
    row = None if producer is None else row_of(producer)
    return row is not None and row.flat == "masked"


def _attention(site: Site) -> Finding:
    """Fused: query or key is zero, there is one token only, a mask leaves one, or all weights are one-hot."""
    query, key, mask = (site.tensor(name) for name in ("query", "key", "attn_mask"))
    if site.index > 1 or query is None or key is None:
        return _flat(site)
    if largest(key if site.index == 0 else query) == 0.0:
        return product(site)
    if key.shape[-2] == 1:
        return Finding("constant", {"candidates": 1, "reason": "a softmax over one token is 1 whatever comes in"})
    if mask is not None and _leaves_one(mask):
        return Finding("masked", {"candidates": key.shape[-2], "candidates_left": 1})
    return Finding("saturated-sigmoid", {"candidates": key.shape[-2]})


def _leaves_one(mask: Tensor) -> bool:
    open_to = mask if mask.dtype == torch.bool else torch.isfinite(mask)
    return bool((open_to.sum(dim=-1) == 1).all())


def _normaliser(site: Site) -> Finding:
    """Its weight is 0; or it makes the same of everything, as over one element, but for rounding."""
    weight, before = site.tensor("weight"), site.tensor("input")
    if site.left:
        return Finding("constant", {"reason": _ALONE}) if _is_alone(site) else _undecided(site)
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


def _gates(site: Site) -> Finding:
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


def _loss(site: Site) -> Finding:
    """Satisfied exactly or nearly so, weighed by zero, or with every target left out."""
    prediction, target, ignored = site.tensor("self"), site.tensor("target"), site.saved("ignore_index")
    evidence: Evidence = {"elements": site.gradient.numel() if prediction is None else prediction.numel()}
    if target is not None and ignored is not None:
        evidence["share_ignored"] = share(target == ignored)
    elif prediction is not None and target is not None and prediction.shape == target.shape:
        evidence["largest_difference"] = largest(prediction.double() - target.double())
    return Finding("zero-loss", evidence)


_BY_FAMILY: dict[Family, Callable[[Site], Finding]] = {
    "activation": _activation,
    "attention": _attention,
    "clamp": _clamp,
    "contraction": product,
    "distance": _distance,
    "function": _flat,
    "gates": _gates,
    "loss": _loss,
    "normaliser": _normaliser,
    "overwriting": _left_out,
    "product": product,
    "selection": _selection,
    "softmax": _softmax,
    "steps": _steps,
    "view": _left_out,
}

# What can leave next to nothing of a gradient rather than nothing.
_SHRINK: tuple[Family, ...] = ("activation", "contraction", "distance", "loss", "normaliser", "product", "softmax")
