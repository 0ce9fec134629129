"""Products: what the other factor is, where it is zero, or next to nothing, wherever a gradient came in.

The gradient towards one factor is the incoming gradient times the other factor. What the other one *is* gives the
kind: a parameter, a layer's input, a mask, the output of something that saturates, or any other zero.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from gradwatch.diagnose.graph.walk import Node, row_of
from gradwatch.diagnose.look.numbers import largest, share
from gradwatch.diagnose.look.site import Evidence, Finding, Site

__all__ = ["LEFT", "product"]

# What leaves less than this share of a gradient is asked why.
LEFT = 1e-2

# What can be 0 because it is flat or left out, as far as the catalogue's kinds tell.
_MAKES_ZERO = ("dead-relu", "saturated-sigmoid", "clamped", "masked")


def product(site: Site) -> Finding:
    """A product that is 0, or small, for every gradient that comes in: the other factor is so there."""
    other, factor = _other_factor(site)
    if site.left and site.row.bound == "quotient" and factor is not None:
        factor = factor.double().reciprocal() if site.index == 0 else None
    if site.left and (factor is None or not 0.0 < largest(factor) < LEFT):
        return Finding("unknown", {"reason": "what was saved does not decide"})
    kind, evidence = _kind_of_factor(site, other, factor)
    if factor is None:
        return Finding(kind, evidence)
    numbers: Evidence = (
        {"largest_factor": largest(factor)} if site.left else {"share_of_zeros": share(factor == 0)}
    )
    if largest(factor) and not site.left:
        evidence["reason"] = "zero wherever a gradient comes in"
    return Finding(kind, {**numbers, "elements": factor.numel(), **evidence})


def _other_factor(site: Site) -> tuple[int | None, Tensor | None]:
    """The number of the other factor among the inputs, None for a plain number, and its values, if known."""
    names, inputs = site.row.saved, site.graph.inputs[site.node]
    factors = [index for index, name in enumerate(names) if name]
    others = [index for index in factors if index != site.index]
    if site.index not in factors or not others:
        return None, None
    other = others[0]
    number = site.saved(names[other])
    if isinstance(number, (int, float)):
        return None, site.gradient.new_tensor(float(number))
    values = site.tensor(names[other])
    if values is None and other < len(inputs):
        weight = site.graph.weight(site.node, other)
        values = None if weight is None else weight.detach()
    if values is not None and site.part is not None and site.row.family == "contraction" and values.dim() == 2:
        # A part of the columns of the first factor meets the same rows of the second.
        values = values.narrow(0, site.part.start, site.part.length)
    return other, values


def _kind_of_factor(site: Site, other: int | None, factor: Tensor | None) -> tuple[str, Evidence]:
    """What a factor is that lets nothing through, or next to nothing: the kind of cause, and further evidence."""
    graph = site.graph
    constant = other is None or other >= len(graph.inputs[site.node]) or graph.inputs[site.node][other][0] is None
    if not constant and other is not None and graph.weight(site.node, other) is not None:
        return "zero-weight", {}
    towards = graph.weight(site.node, site.index)
    if towards is not None:
        masks = constant and site.row.family == "product" and factor is not None and factor.shape == towards.shape
        return ("masked" if masks else "zero-input"), {}
    if constant or other is None:
        return _kind_of_constant(site, factor)
    producer = graph.producer(site.node, other)
    return ("zero-factor", {}) if producer is None else _kind_of_made(site, producer)


def _kind_of_constant(site: Site, factor: Tensor | None) -> tuple[str, Evidence]:
    """A constant factor of zero weighs the loss, is a frozen weight, masks what a network makes, or is just 0."""
    if factor is None:
        return "zero-factor", {"factor": "it was not saved"}
    call = site.place.call(site.node)
    if call is not None and isinstance(call.module, _DropoutNd):
        return "masked", {"probability": call.module.p}
    if _is_frozen_weight(site):
        return "zero-weight", {"frozen": 1}
    if site.in_loss or (site.place.side(site.node) == "output" and factor.dim() == 0):
        return "zero-loss", {}
    # A mask leaves out elements of what it is applied to: it is no matrix, no number, and has no more elements.
    one_of_ours = site.handed_on is not None and factor.numel() <= site.handed_on.numel()
    if site.row.family == "product" and factor.dim() and one_of_ours:
        return "masked", {}
    return "zero-factor", {"factor": _in_words(factor)}


def _is_frozen_weight(site: Site) -> bool:
    """A constant of zeros that is a parameter all the same, transposed at the most: no gradient is asked for."""
    saved = (site.saved(name) for name in site.row.saved if name)
    tensors = [value for value in saved if isinstance(value, Tensor)]
    weights = (one for value in tensors for one in (value, value._base) if isinstance(one, nn.Parameter))
    return any(not largest(weight) for weight in weights)


def _kind_of_made(site: Site, producer: Node) -> tuple[str, Evidence]:
    """A factor that was computed: by what, decides."""
    made_in = site.place.path(producer) or "(no module)"
    made_by: Evidence = {"factor_made_by": producer.name(), "factor_made_in": made_in}
    row = row_of(producer)
    if row is not None and row.flat in _MAKES_ZERO and row.family not in ("softmax", "attention", "gates"):
        return row.flat, made_by
    # A layer that starts from zero, as the gates of AdaLN-zero do.
    weights = [site.graph.weight(producer, index) for index in range(len(site.graph.inputs[producer]))]
    known = [weight for weight in weights if weight is not None]
    if known and not any(largest(weight.detach()) for weight in known):
        return "zero-weight", made_by
    return "zero-factor", made_by


def _in_words(factor: Tensor) -> str:
    if factor.dim() == 0:
        return f"the number {factor.item():g}"
    return f"a constant of shape {tuple(factor.shape)}: data, or what was computed from data alone"
