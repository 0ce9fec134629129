"""From an operation that killed a gradient to what it proves: a table of readers, and what is said without one."""

from __future__ import annotations

from collections.abc import Callable

from gradwatch.diagnose import factors, gates, losses, selections, slopes
from gradwatch.diagnose.numbers import largest
from gradwatch.diagnose.site import PRODUCTS, Finding, Site, no_grad_nor_autocast
from gradwatch.diagnose.walk import operation

__all__ = ["BY_PARTS", "KNOWN", "read"]

KNOWN: dict[str, Callable[[Site], Finding | None]] = {
    **slopes.READERS,
    **factors.READERS,
    **selections.READERS,
    **losses.READERS,
    **gates.READERS,
}

# Whose readers can look at a part of an input: elementwise ones, and products with a weight.
BY_PARTS = frozenset([*slopes.READERS, *PRODUCTS, "Mul", "Div", "Where", "MaskedFill", "Minimum", "Maximum"]) - {"Glu"}

# What a nonzero gradient that arrives at an operation of the loss's graph rules out by itself.
_ALWAYS_RULED_OUT = "unused, no-grad, detached, zero-loss"


def read(site: Site) -> Finding:
    """What an operation's saved tensors prove; ``unknown``, with what was ruled out, where they do not decide."""
    with no_grad_nor_autocast():
        finding = _read(site)
        numbers = {
            "operation": site.node.name(),
            "input": site.index,
            "largest_incoming": max(map(largest, site.incoming), default=0.0),
        }
    return Finding(finding.kind, {**finding.evidence, **numbers})


def _read(site: Site) -> Finding:
    reader = KNOWN.get(operation(site.node))
    if reader is None:
        return from_outside(site) or Finding("unknown", {"reason": "no reader", "ruled_out": _ALWAYS_RULED_OUT})
    found = reader(site) or from_outside(site)
    if found is not None:
        return found
    return Finding("unknown", {"reason": "what was saved does not decide", "ruled_out": _ALWAYS_RULED_OUT})


def from_outside(site: Site) -> Finding | None:
    """Where nothing saved can be read (checkpoints, offloading): what the module's call showed.

    It tells of whole outputs, so it decides only where all of an output is flat.
    """
    call = site.place.call(site.node)
    if call is None or len(call.outputs) != 1 or next(call.module.children(), None) is not None:
        return None
    low, high, nearest = call.outputs[0]
    evidence = {"output_min": low, "output_max": high}
    made = operation(site.node)
    if made == "Relu" and high == 0.0:
        return Finding("dead-relu", {**evidence, "share": 1.0})
    if made == "Tanh" and nearest >= 1.0:
        return Finding("saturated-tanh", {**evidence, "share_saturated": 1.0, "largest_slope": 0.0})
    if made == "Sigmoid" and low == high and low in (0.0, 1.0):
        return Finding("saturated-sigmoid", {**evidence, "share_saturated": 1.0})
    return None
