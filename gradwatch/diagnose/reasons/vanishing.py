"""A gradient that is all but gone: which operation on its way took nearly all of it, and by what small number.

Where a gradient is exactly 0 one operation made it so. Where it is merely small, each may have taken its part: one
is blamed only if it took most of what was lost, counted in decades, as losses are factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from gradwatch.diagnose.graph.saved import signed
from gradwatch.diagnose.graph.walk import Node, operation, row_of
from gradwatch.diagnose.look.numbers import largest, share
from gradwatch.diagnose.look.site import Evidence, Finding, Site
from gradwatch.diagnose.look.values import input_range
from gradwatch.diagnose.reasons.attenuation import Loss
from gradwatch.diagnose.reasons.factors import kind_of_factor, other_factor

__all__ = ["FAINT", "LEFT", "NEARLY_DEAD", "of_most", "read_faint", "spread"]

# A gradient smaller than this is asked how it became so; an operation that leaves less than this share is read.
FAINT, LEFT = 1e-6, 1e-2

# To be blamed alone an operation must have taken this share of all decades lost, and so many of them.
_SHARE, _DECADES = 0.75, 4.0

# Nearly dead: so large a share of an activation's units has lost a decade or more, and the gradient three there.
_DEAD_UNITS, _FLAT_SLOPE, NEARLY_DEAD = 0.95, 0.1, 3.0

_ONE_OF_SEVERAL = "of several parts that were joined this one had lost it further on, behind the largest of them"
_ALIKE = "what came in is nearly the same for all candidates, or the softmax cannot be read"


def read_faint(site: Site) -> Finding:
    """What made an operation hand on so little: a flat slope, or a small factor."""
    arrives, left = largest(site.gradient), largest(site.handed_on)
    numbers: Evidence = {
        "operation": site.node.name(),
        "input": site.index,
        "largest_incoming": arrives,
        "largest_outgoing": left,
    }
    how = _SMALL_BY.get(site.row.family, _undecided)
    return how(site, {**numbers, "largest_slope": left / arrives})


def _by_its_slope(site: Site, numbers: Evidence) -> Finding:
    if not site.row.flat:
        return _undecided(site, numbers)
    slopes = site.probe.slopes(site.index)
    flat: Evidence = {} if slopes is None else {"share_flat": share(slopes.abs() < _FLAT_SLOPE)}
    return Finding(site.row.flat, {**numbers, **flat, **input_range(site.node)})


def _by_its_shares(site: Site, numbers: Evidence) -> Finding:
    """A softmax hands on differences between its candidates' gradients, whatever its slope."""
    result, dim = site.tensor("result"), site.saved("dim")
    if result is None or dim is None:
        return Finding("unknown", {**numbers, "reason": _ALIKE, "ruled_out": "saturated-sigmoid"})
    shares = result.double().exp() if operation(site.node) == "LogSoftmax" else result.double()
    live = (site.gradient != 0).any(dim=signed(dim), keepdim=True)
    if largest(shares * (1 - shares) * live) >= LEFT:
        return Finding("unknown", {**numbers, "reason": _ALIKE, "ruled_out": "saturated-sigmoid"})
    return Finding(site.row.flat, {**numbers, **input_range(site.node)})


def _by_its_factor(site: Site, numbers: Evidence) -> Finding:
    other, factor = other_factor(site)
    if factor is not None and operation(site.node) == "Div":
        factor = factor.double().reciprocal() if site.index == 0 else None
    if factor is None or not 0.0 < largest(factor) < LEFT:
        return _undecided(site, numbers)
    kind, extra = kind_of_factor(site, other, factor)
    return Finding(kind, {**numbers, "largest_factor": largest(factor), "elements": factor.numel(), **extra})


def _as_constant(site: Site, numbers: Evidence) -> Finding:
    """A normaliser over one element hands on nothing but rounding errors."""
    shape, groups = site.saved("normalized_shape"), site.saved("group")
    alone = shape is not None and math.prod(shape) == 1
    if isinstance(groups, int):
        alone = site.saved("C") * site.saved("HxW") == groups
    reason = "it normalises over one element: what is left of the gradient is rounding"
    return Finding("constant", {**numbers, "reason": reason}) if alone else _undecided(site, numbers)


def _as_loss(site: Site, numbers: Evidence) -> Finding:
    return Finding("zero-loss", {**numbers, **input_range(site.node)})


def _as_part(site: Site, numbers: Evidence) -> Finding:
    return Finding("unknown", {**numbers, "reason": _ONE_OF_SEVERAL})


def _undecided(site: Site, numbers: Evidence) -> Finding:
    return Finding("unknown", {**numbers, "reason": "what was saved does not decide"})


_SMALL_BY: dict[str, Callable[[Site, Evidence], Finding]] = {
    "activation": _by_its_slope,
    "softmax": _by_its_shares,
    "contraction": _by_its_factor,
    "product": _by_its_factor,
    "loss": _as_loss,
    "normaliser": _as_constant,
    "distance": _as_loss,
    "joint": _as_part,
    "overwriting": _as_part,
    "selection": _as_part,
    "view": _as_part,
}


def of_most(losses: Sequence[Loss], found: Callable[[Loss], Finding | None]) -> tuple[Loss | None, Evidence]:
    """The one that took nearly everything, None where none did; and the numbers that say so.

    Args:
        losses: on the way of one gradient.
        found: why one of them is as small as it is, as far as that was read.
    """
    total = sum(loss.decades for loss in losses)
    most = max(losses, key=lambda loss: loss.decades, default=None)
    if most is None:
        return None, {"decades_lost": 0.0}
    numbers: Evidence = {"decades_lost": total, "operations_that_lose": len(losses)}
    alone = most.decades >= max(_DECADES, _SHARE * total) or _is_nearly_dead(most, found(most))
    numbers["decades_lost_here" if alone else "most_lost_by_one"] = most.decades
    if not alone:
        numbers["which"] = most.node.name()
    return (most if alone else None), numbers


def _is_nearly_dead(loss: Loss, found: Finding | None) -> bool:
    flat = None if found is None else found.evidence.get("share_flat")
    return isinstance(flat, float) and flat >= _DEAD_UNITS and loss.decades >= NEARLY_DEAD


def spread(node: Node, incoming: Sequence[Tensor | None], outgoing: Sequence[Tensor | None]) -> float:
    """Over how many elements a mean or a loss spreads each that came in; 1 for what does not.

    Each of n elements gets 1/n of it: what is lost to each is added up again further down.
    """
    row = row_of(node)
    if row is None or not (row.teaches or row.family in ("loss", "reduction")):
        return 1.0
    came, went = (sum(g.numel() for g in gradients if g is not None) for gradients in (incoming, outgoing))
    return max(1.0, went / max(1, came))
