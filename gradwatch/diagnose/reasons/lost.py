"""An operation that was given a gradient and handed on nothing, next to nothing, or what is not finite: why.

What is asked is what becomes of a gradient *where one came in*: elsewhere it does not matter. The operation's
answer (``look.probe``), times its family (``graph.catalogue``), is the kind of the cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from gradwatch.diagnose.graph.catalogue import UNKNOWN, Family
from gradwatch.diagnose.graph.walk import row_of
from gradwatch.diagnose.look.numbers import in_words, largest
from gradwatch.diagnose.look.site import Evidence, Finding, Site
from gradwatch.diagnose.look.values import values_of
from gradwatch.diagnose.reasons import flat
from gradwatch.diagnose.reasons.bounds import too_large_for
from gradwatch.diagnose.reasons.factors import LEFT, product

__all__ = ["why"]

# Products with a gradient above this do not underflow in float32 unless the other factor is nothing either.
_NO_UNDERFLOW = 1e-19

_CAME_IN = "what came into it was not finite, and only the loss was kept from it: leave it out before that"
_ONE_OF_SEVERAL = "of several parts that were joined this one had lost it further on, behind the largest of them"


def why(site: Site) -> Finding | None:
    """The kind of the cause; ``unknown``, with what was ruled out, where nothing decides; None of what is well."""
    if not math.isfinite(site.left):
        return _why_broken(site) if math.isfinite(site.came) else None
    if site.left and not site.left < LEFT * site.came < math.inf:
        return None
    found = _why_faint(site) if site.left else _why_zero(site)
    numbers: Evidence = {"operation": site.node.name(), "input": site.index, "largest_incoming": site.came}
    if site.left:
        numbers |= {"largest_outgoing": site.left, "largest_slope": site.left / site.came}
    return Finding(found.kind, {**numbers, **found.evidence})


def _why_broken(site: Site) -> Finding:
    """It was given a finite gradient and handed on one that is not."""
    values = values_of(site.graph, site.node)
    was_finite = all(each.finite for each in values.inputs.values())
    came_in: Evidence = {} if was_finite else {"reason": _CAME_IN}
    what: Evidence = {"operation": site.node.name(), "direction": "backward", "output": in_words(site.left)}
    if was_finite and site.row.overflows and site.handed_on is not None:
        what |= too_large_for(site.handed_on.dtype)
    return Finding("nonfinite-op", {**what, "largest_incoming": site.came, **values.ranges, **came_in})


def _why_zero(site: Site) -> Finding:
    if site.handed_on is not None and site.handed_on.numel() == 0:
        return _nothing_left(site)
    family, answer = site.row.family, site.answer
    if answer == "underflow":
        return Finding("underflow", _of_type(site))
    if answer == "unasked" and family != "overwriting" and site.came < _NO_UNDERFLOW:
        return flat.undecided(site)
    if answer == "cancelled" and family not in ("selection", "overwriting", "view"):
        reason = "what came in is alike wherever it goes: it cancels exactly"
        return Finding("unknown", {"reason": reason, "ruled_out": f"{flat.RULED_OUT}, underflow"})
    return _BY_FAMILY.get(family, flat.undecided)(site)


def _why_faint(site: Site) -> Finding:
    if site.row.family in ("joint", "overwriting", "selection", "view"):
        return Finding("unknown", {"reason": _ONE_OF_SEVERAL})
    return _BY_FAMILY[site.row.family](site) if site.row.family in _SHRINK else flat.undecided(site)


def _of_type(site: Site) -> Evidence:
    kept_in = (site.gradient if site.handed_on is None else site.handed_on).dtype
    info = torch.finfo(kept_in)
    return {"smallest_of_type": info.tiny * info.eps, "dtype": info.dtype}


def _nothing_left(site: Site) -> Finding:
    """The input is empty: an empty mask or index left no element of it, or no sample came here."""
    teaches = site.in_loss and not _was_selected(site)
    return Finding("zero-loss" if teaches else "masked", {"elements": 0, "reason": "nothing was selected"})


def _was_selected(site: Site) -> bool:
    """Whether what the network gave was cut down to nothing, rather than a loss made of it."""
    node = site.graph.producer(site.node, site.index)
    while node is not None and (row_of(node) or UNKNOWN).family != "selection":
        node = site.graph.producer(node, 0) if site.graph.inputs[node] else None
    return node is not None and site.place.side(node) != "loss"


def _steps(site: Site) -> Finding:
    """Constant between its steps; a sampler that is not the nearest's is flat outside of what it samples only."""
    if site.saved("interpolation_mode") == 0:
        return _left_out(site)
    return Finding("constant", {"reason": "it is constant between its steps, so no gradient ever comes through"})


def _left_out(site: Site) -> Finding:
    """A mask, a selection or a slice leaves out all that a gradient came in for; of a loss, all of the loss."""
    if site.row.moves != "cuts" or site.part is None or site.handed_on is None:
        return Finding(site.kind, {"share_masked": 1.0, "elements": site.gradient.numel()})
    elements = site.part.of(site.handed_on).numel()
    return Finding("masked", {"share_masked": 1.0, "elements": elements, "reason": "a slice leaves it out"})


def _selection(site: Site) -> Finding:
    """A mask, or of two tensors the other one: a constant one is a limit, and 0 in a loss is that of a hinge."""
    if len(site.row.saved) < 2:
        return _left_out(site)
    other = site.tensor(site.row.saved[1 - site.index])
    if site.graph.inputs[site.node][1 - site.index][0] is not None:
        return Finding("masked", {"share_not_taken": 1.0})
    kind = site.kind if other is not None and largest(other) == 0.0 else site.row.flat
    return Finding(kind, {"share_not_taken": 1.0, "elements": site.gradient.numel()})


_BY_FAMILY: dict[Family, Callable[[Site], Finding]] = {
    "activation": flat.activation,
    "attention": flat.attention,
    "clamp": flat.clamp,
    "contraction": product,
    "distance": flat.distance,
    "function": flat.flat,
    "gates": flat.gates,
    "loss": flat.loss,
    "normaliser": flat.normaliser,
    "overwriting": _left_out,
    "product": product,
    "selection": _selection,
    "softmax": flat.softmax,
    "steps": _steps,
    "view": _left_out,
}

# What can leave next to nothing of a gradient rather than nothing.
_SHRINK: tuple[Family, ...] = ("activation", "contraction", "distance", "loss", "normaliser", "product", "softmax")
