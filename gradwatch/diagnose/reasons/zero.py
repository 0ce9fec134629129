"""An operation that was given a gradient and handed nothing on: what its own formula and what it saved prove.

What is asked is what becomes of a gradient *where one came in*: elsewhere it does not matter. The operation's
answer (``look.probe``), times its family (``graph.catalogue``), is the kind of the cause.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from gradwatch.diagnose.graph.catalogue import Family
from gradwatch.diagnose.graph.saved import signed
from gradwatch.diagnose.graph.walk import operation, row_of
from gradwatch.diagnose.look.numbers import extent, largest, share
from gradwatch.diagnose.look.site import Evidence, Finding, Site
from gradwatch.diagnose.reasons.factors import product

__all__ = ["why_zero"]

# What a nonzero gradient that arrives at an operation of the loss's graph rules out by itself.
_RULED_OUT = "unused, no-grad, detached, zero-loss"

# Products with a gradient above this do not underflow in float32 unless the other factor is nothing either.
_NO_UNDERFLOW = 1e-19


def why_zero(site: Site) -> Finding:
    """The kind of the cause; ``unknown``, with what was ruled out, where nothing decides."""
    arrives = max(map(largest, site.incoming), default=0.0)
    found = _why(site, arrives)
    numbers: Evidence = {"operation": site.node.name(), "input": site.index, "largest_incoming": arrives}
    return Finding(found.kind, {**found.evidence, **numbers})


def _why(site: Site, arrives: float) -> Finding:
    if site.handed_on is not None and site.handed_on.numel() == 0:
        return _nothing_left(site)
    row, answer = site.row, site.answer
    if answer == "underflow":
        return Finding("underflow", _of_type(site))
    if answer == "unasked" and row.family != "overwriting" and arrives < _NO_UNDERFLOW:
        return _undecided(site)
    if answer == "cancelled" and row.family not in ("selection", "overwriting", "view"):
        reason = "what came in is alike wherever it goes: it cancels exactly"
        return Finding("unknown", {"reason": reason, "ruled_out": f"{_RULED_OUT}, underflow"})
    return _BY_FAMILY.get(row.family, _undecided)(site)


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
    while node is not None and operation(node) not in ("Index", "IndexSelect", "MaskedSelect"):
        node = site.graph.producer(node, 0) if site.graph.inputs[node] else None
    return node is not None and site.sides.of(node) != "loss"


def _undecided(site: Site) -> Finding:
    reasons = {
        "flat": "its formula gives exactly 0 for every gradient here, and nothing more is known of it",
        "cancelled": "its formula gives something for other gradients, and nothing more is known of it",
    }
    reason = reasons.get(site.answer, "its formula cannot be asked: nothing is known of it")
    if operation(site.node) == "CompiledFunctionBackward":
        reason = "torch.compile leaves no operations to look at: run this step once without it"
    return Finding("unknown", {"reason": reason, "ruled_out": _RULED_OUT})


def _flat(site: Site) -> Finding:
    """Flat wherever a gradient came in."""
    kind = site.row.as_loss if site.row.as_loss and site.sides.of(site.node) == "loss" else site.row.flat
    return Finding(kind, {**_units(site), **_values(site)}) if kind else _undecided(site)


def _units(site: Site) -> Evidence:
    """Units that are flat for every sample: channels of an image, else the last dimension."""
    slopes = site.probe.slopes(site.index)
    if slopes is None:
        return {}
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
    result = site.tensor(site.row.result) if site.row.result else None
    before = site.tensor(site.row.saved[0]) if site.row.saved else None
    if result is not None and site.row.flat == "saturated-tanh":
        beyond_9 = torch.tensor(9.0, dtype=torch.float64).tanh().to(result.dtype)
        return {"share_beyond_9": share(result.abs() >= beyond_9)}
    if result is not None and site.row.flat == "saturated-sigmoid":
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
    limit, weight = site.saved("threshold"), site.index
    if operation(site.node) == "PreluKernel" and weight:
        return product(site)
    if operation(site.node) == "Threshold" and limit:
        return Finding("clamped", _flat(site).evidence)
    return _flat(site)


def _distance(site: Site) -> Finding:
    """A length, a power or an absolute value of exactly 0; the power 0 is constant whatever comes in."""
    if operation(site.node) == "Pow" and site.saved("exponent") == 0:
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
    if operation(site.node) != "Slice" or site.part is None or site.handed_on is None:
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
    """Every row that a gradient came in for is one-hot, or has one candidate only."""
    result, dim = site.tensor("result"), site.saved("dim")
    if result is None:
        return _flat(site)
    candidates = result.shape[signed(dim)]
    if candidates == 1:
        return Finding("constant", {"candidates": 1, "reason": "a softmax over one class is 1 whatever comes in"})
    shares = result.exp() if operation(site.node) == "LogSoftmax" else result
    evidence: Evidence = {"share_one_hot": share((shares == 1).any(dim=signed(dim))), "candidates": candidates}
    kind = "masked" if site.row.as_loss == "" and _scores_are_masked(site) else _flat(site).kind
    return Finding(kind, evidence)


def _scores_are_masked(site: Site) -> bool:
    """By a mask that leaves one candidate, rather than by one score that towers above the rest."""
    producer = site.graph.producer(site.node, site.index)
    row = None if producer is None else row_of(producer)
    call = site.sides.place.call(site.node)
    by_addition = call is not None and any(values.low == float("-inf") for values in call.inputs)
    return by_addition or (row is not None and row.flat == "masked")


def _attention(site: Site) -> Finding:
    """Fused: query or key is zero, there is one token only, a mask leaves one, or all weights are one-hot."""
    query, key = site.tensor("query"), site.tensor("key")
    if site.index > 1 or query is None or key is None:
        return _flat(site)
    if largest(key if site.index == 0 else query) == 0.0:
        return product(site)
    if key.shape[-2] == 1:
        return Finding("constant", {"candidates": 1, "reason": "a softmax over one token is 1 whatever comes in"})
    mask = site.tensor("attn_mask")
    if mask is not None:
        open_to = mask if mask.dtype == torch.bool else torch.isfinite(mask)
        if bool((open_to.sum(dim=-1) == 1).all()):
            return Finding("masked", {"candidates": key.shape[-2], "candidates_left": 1})
    return Finding("saturated-sigmoid", {"candidates": key.shape[-2]})


def _normaliser(site: Site) -> Finding:
    """Its weight is 0; or it makes the same of everything, as over one element."""
    weight, before = site.tensor("weight"), site.tensor("input")
    if site.index == 0 and weight is not None and largest(weight) == 0.0:
        return product(site)
    if site.index == 0:
        reason = "what it makes does not depend on what comes in: it normalises over one element"
        return Finding("constant", {"reason": reason})
    same = before is not None and extent(before).low == extent(before).high
    reason = "a constant input is normalised to 0" if same else "what it normalises comes out as 0"
    return Finding("zero-input", {**_values(site), "reason": reason})


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
    """Satisfied exactly, weighed by zero, or with every target left out."""
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
