"""From an operation that killed a gradient to what it proves: a table of readers, and what is said without one."""

from __future__ import annotations

from collections.abc import Callable

from gradwatch.diagnose import factors, gates, losses, rectifiers, selections, slopes, weighted
from gradwatch.diagnose.numbers import arithmetic, largest
from gradwatch.diagnose.parts import PRODUCTS
from gradwatch.diagnose.place import LOSS_FUNCTIONS
from gradwatch.diagnose.site import Finding, Site
from gradwatch.diagnose.walk import operation

__all__ = ["BY_PARTS", "KNOWN", "read"]

KNOWN: dict[str, Callable[[Site], Finding | None]] = {
    **slopes.READERS,
    **rectifiers.READERS,
    **factors.READERS,
    **weighted.READERS,
    **selections.READERS,
    **losses.READERS,
    **gates.READERS,
}

# Whose readers can look at a part of an input: elementwise ones, products with a weight, and slices.
_ELEMENTWISE = set(slopes.READERS | rectifiers.READERS) - {"Glu", "LinalgVectorNorm", "Norm", "Std"}
BY_PARTS = _ELEMENTWISE | PRODUCTS | {"Mul", "Div", "Where", "MaskedFill", "Minimum", "Maximum", "Slice"}

_SELECTING = ("Index", "IndexSelect", "MaskedSelect")

# What a nonzero gradient that arrives at an operation of the loss's graph rules out by itself.
_ALWAYS_RULED_OUT = "unused, no-grad, detached, zero-loss"


def read(site: Site) -> Finding:
    """What an operation's saved tensors prove; ``unknown``, with what was ruled out, where they do not decide."""
    with arithmetic():
        finding = _read(site)
        numbers = {
            "operation": site.node.name(),
            "input": site.index,
            "largest_incoming": max(map(largest, site.incoming), default=0.0),
        }
    return Finding(finding.kind, {**finding.evidence, **numbers})


def _read(site: Site) -> Finding:
    if site.outgoing is not None and site.outgoing.numel() == 0:
        return _nothing_left(site)
    reader = KNOWN.get(operation(site.node))
    found = reader(site) if reader is not None else None
    return found or from_outside(site) or _undecided(site, known=reader is not None)


def _nothing_left(site: Site) -> Finding:
    """The input is empty: an empty mask or index left no element of it, or no sample came here."""
    teaches = site.place.linear_above(site.node, also=LOSS_FUNCTIONS)
    kind = "zero-loss" if teaches and not _was_selected(site) else "masked"
    return Finding(kind, {"elements": 0, "reason": "nothing was selected"})


def _was_selected(site: Site) -> bool:
    """Whether what the network gave was cut down to nothing, rather than a loss made of it."""
    node = site.graph.producer(site.node, site.index)
    while node is not None and operation(node) not in _SELECTING:
        node = site.graph.producer(node, 0) if site.graph.inputs[node] else None
    return node is not None and not site.place.of_loss(node, 0)


def _undecided(site: Site, known: bool) -> Finding:
    reason = "what was saved does not decide" if known else "what this operation saves is not known"
    if operation(site.node) == "CompiledFunctionBackward":
        reason = "torch.compile leaves no operations to look at: run this step once without it"
    return Finding("unknown", {"reason": reason, "ruled_out": _ALWAYS_RULED_OUT})


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
