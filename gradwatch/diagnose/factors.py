"""Products: which of their two factors is zero, and what that factor is.

The gradient towards one factor is the incoming gradient times the other factor. Where the other one is zero, what
it *is* gives the kind: a parameter, a layer's input, a constant mask, the output of something that saturates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.numbers import share
from gradwatch.diagnose.site import Finding, Site
from gradwatch.diagnose.slopes import steps, underflow
from gradwatch.diagnose.walk import Node, operation

__all__ = ["READERS", "kind_of_factor", "name_factor"]

Reader = Callable[[Site], Finding | None]

# What makes a zero that is not a coincidence of numbers.
_ZERO_MADE_BY = {
    "Relu": "dead-relu",
    "Threshold": "dead-relu",
    "Sigmoid": "saturated-sigmoid",
    "Silu": "saturated-sigmoid",
    "Hardsigmoid": "clamped",
    "Hardtanh": "clamped",
    "Clamp": "clamped",
    "ClampMin": "clamped",
    "ClampMax": "clamped",
    "MaskedFill": "masked",
    "Where": "masked",
    "NativeDropout": "masked",
    "Zero": "masked",
    "Fill": "masked",
}


def mul(site: Site) -> Finding | None:
    """An elementwise product."""
    other = 1 - site.index
    factor = site.tensor("self" if other == 0 else "other")
    if factor is None:
        return None
    live = site.gradient != 0
    if bool((live & (factor != 0)).any()):
        return _product_underflow(site, factor)
    return name_factor(site, other, factor, elementwise=True)


def scale(site: Site) -> Finding | None:
    """A product with a plain number."""
    number = site.saved("other")
    if not isinstance(number, (int, float)):
        return None
    factor = torch.tensor(float(number), device=site.gradient.device)
    return _product_underflow(site, factor) if number else name_factor(site, None, factor, elementwise=True)


def div(site: Site) -> Finding | None:
    """A quotient: its gradient can only get too small, or its numerator be zero."""
    divisor = site.tensor("other")
    if site.saved("rounding_mode") is not None:
        return steps(site)
    if divisor is None:
        return None
    if site.index == 0:
        return underflow(site.gradient.double() / divisor.double(), _kept_in(site))
    numerator = site.tensor("self")
    if numerator is None:
        return None
    if bool(((site.gradient != 0) & (numerator != 0)).any()):
        wide = site.gradient.double() * numerator.double() / divisor.double().square()
        return underflow(wide, _kept_in(site))
    return name_factor(site, 0, numerator, elementwise=True)


def mean(site: Site) -> Finding | None:
    """The gradient of a mean over n elements is 1/n of the incoming one."""
    count = site.saved("self_sym_numel")
    if not isinstance(count, int):
        return None
    sizes, incoming = site.saved("self_sym_sizes"), site.gradient
    over = count / max(1, incoming.numel()) if sizes else 1
    return underflow(incoming.double() / over, _kept_in(site))


def cast(site: Site) -> Finding | None:
    """A cast: the gradient is too small for the narrower type."""
    return underflow(site.gradient, _kept_in(site))


def promoted(site: Site) -> Finding | None:
    """A sum of two types: its gradient is too small for the narrower one."""
    return cast(site) if site.gradient.dtype != _kept_in(site) else None


def matmul(first: int, first_name: str, second_name: str) -> Reader:
    """A matrix product.

    Args:
        first: number of the first factor among the operation's inputs.
        first_name: under which name the first factor is saved.
        second_name: under which name the second one is.
    """

    def reader(site: Site) -> Finding | None:
        if site.index not in (first, first + 1):
            return None
        towards_first = site.index == first
        factor = site.tensor(second_name if towards_first else first_name)
        if factor is None:
            return _unread(site, first + towards_first)
        if towards_first and site.part is not None:
            if site.part.dim != 1:
                return None
            # A part of the columns of the first factor meets the same rows of the second.
            factor = factor.narrow(0, site.part.start, site.part.length)
        if not bool((factor != 0).any()):
            return name_factor(site, first + towards_first, factor)
        gradient, wide = _as_matrices(site.gradient), _as_matrices(factor).double()
        pair = (gradient.double(), wide.mT) if towards_first else (wide.mT, gradient.double())
        return _contraction(site, first + towards_first, factor, torch.matmul(*pair))

    return reader


def dot(site: Site) -> Finding | None:
    """A product of two vectors."""
    other = 1 - site.index
    factor = site.tensor("self" if other == 0 else "tensor")
    if factor is None:
        return None
    return _product_underflow(site, factor) if bool((factor != 0).any()) else name_factor(site, other, factor)


def convolution(site: Site) -> Finding | None:
    """A convolution, also a transposed one."""
    if site.index > 1:
        return None
    other = 1 - site.index
    factor = site.tensor("weight" if site.index == 0 else "input")
    if factor is None:
        return _unread(site, other)
    if not bool((factor != 0).any()):
        return name_factor(site, other, factor)
    return _contraction(site, other, factor, _exact_convolution(site))


def name_factor(site: Site, other: int | None, factor: Tensor, *, elementwise: bool = False) -> Finding:
    """What a factor is that is zero wherever a gradient came in."""
    kind, extra = kind_of_factor(site, other, factor, elementwise)
    return Finding(kind, {"share_of_zeros": share(factor == 0), "elements": factor.numel(), **extra})


def kind_of_factor(
    site: Site, other: int | None, factor: Tensor, elementwise: bool
) -> tuple[str, dict[str, float | int | str]]:
    """What a factor is that lets nothing through: the kind of cause, and further evidence."""
    graph, place = site.graph, site.place
    if other is not None and graph.weight(site.node, other) is not None:
        return "zero-weight", {}
    towards = graph.weight(site.node, site.index)
    if towards is not None:
        is_mask = elementwise and factor.shape == towards.shape and _is_constant(site, other)
        return ("masked" if is_mask else "zero-input"), {}
    if _is_constant(site, other):
        if not elementwise and _is_frozen_weight(site, factor):
            return "zero-weight", {}
        return _kind_of_constant(site, factor), {}
    producer = graph.producer(site.node, other) if other is not None else None
    if producer is None:
        return "masked", {}
    return _kind_of_made(site, producer, place.path(producer))


def _is_frozen_weight(site: Site, factor: Tensor) -> bool:
    """A constant of zeros that is a parameter all the same: without a gradient it leaves no other trace."""
    call = site.place.call(site.node)
    if call is None:
        return False
    own = call.module.parameters(recurse=False)
    frozen = (p.detach() for p in own if not p.requires_grad and p.numel() == factor.numel())
    return any(not bool((values != 0).any()) for values in frozen)


def _kind_of_constant(site: Site, factor: Tensor) -> str:
    """A constant factor of zero weighs the loss, or masks what a network makes."""
    place, one = site.place, site.gradient.numel() == 1
    by_a_number = factor.dim() == 0 and not place.in_network(site.node)
    weighs = (one or by_a_number) and place.linear_above(site.node) and place.outside_or_beside_loss(site.node)
    return "zero-loss" if weighs or place.of_loss(site.node, site.index) else "masked"


def _kind_of_made(site: Site, producer: Node, path: str | None) -> tuple[str, dict[str, float | int | str]]:
    """A factor that was computed: by what, decides."""
    made_by: dict[str, float | int | str] = {
        "factor_made_by": producer.name(),
        "factor_made_in": path or "(no module)",
    }
    weights = [site.graph.weight(producer, index) for index in range(len(site.graph.inputs[producer]))]
    known = [weight for weight in weights if weight is not None]
    if operation(producer) in _ZERO_MADE_BY:
        return _ZERO_MADE_BY[operation(producer)], made_by
    # A layer that starts from zero, as the gates of AdaLN-zero do.
    if known and all(not bool((weight != 0).any()) for weight in known):
        return "zero-weight", made_by
    return "unknown", {**made_by, "ruled_out": "zero-weight, zero-loss, dead-relu, saturated-sigmoid, underflow"}


def _is_constant(site: Site, other: int | None) -> bool:
    return other is None or site.graph.inputs[site.node][other][0] is None


def _contraction(site: Site, other: int, factor: Tensor, exact: Tensor) -> Finding | None:
    """A sum of products that came out zero although the factor is not: too small, or never where it counts."""
    found = underflow(exact, _kept_in(site))
    if found is not None or bool((exact != 0).any()):
        return found
    finding = name_factor(site, other, factor)
    return Finding(finding.kind, {**finding.evidence, "reason": "zero wherever a gradient comes in"})


def _unread(site: Site, other: int) -> Finding | None:
    """The factor cannot be read: it still can where it is a parameter, and where its module's call was noted."""
    weight = site.graph.weight(site.node, other)
    if weight is not None:
        values = weight.detach()
        return None if bool((values != 0).any()) else name_factor(site, other, values)
    call = site.place.call(site.node)
    if call is None or site.graph.weight(site.node, site.index) is None:
        return None
    if call.inputs and all(values.zero for values in call.inputs):
        return Finding("zero-input", {"input_min": 0.0, "input_max": 0.0})
    return None


def _product_underflow(site: Site, factor: Tensor) -> Finding | None:
    return underflow(site.gradient.double() * factor.double(), _kept_in(site))


def _kept_in(site: Site) -> torch.dtype:
    return site.gradient.dtype if site.outgoing is None else site.outgoing.dtype


def _as_matrices(values: Tensor) -> Tensor:
    return values if values.dim() > 1 else values[:, None]


def _exact_convolution(site: Site) -> Tensor:
    """The gradient towards the input in question, in float64."""
    gradient, outgoing = site.gradient.double(), site.outgoing
    factor = site.tensor("weight" if site.index == 0 else "input")
    if outgoing is None or factor is None:
        return torch.zeros(())
    # The values of the input that the gradient goes to do not matter, only its shape.
    towards = torch.zeros(outgoing.shape, dtype=torch.float64, device=gradient.device)
    pair = (towards, factor.double()) if site.index == 0 else (factor.double(), towards)
    names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    wanted = [site.index == 0, site.index == 1, False]
    exact = torch.ops.aten.convolution_backward(gradient, *pair, None, *map(site.saved, names), wanted)
    towards_input: Tensor = exact[site.index]
    return towards_input


READERS: dict[str, Reader] = {
    "Mul": mul,
    "Div": div,
    "Mean": mean,
    "Add": promoted,
    "Sub": promoted,
    "ToCopy": cast,
    "Mm": matmul(0, "self", "mat2"),
    "Bmm": matmul(0, "self", "mat2"),
    "Addmm": matmul(1, "mat1", "mat2"),
    "Baddbmm": matmul(1, "batch1", "batch2"),
    "Mv": matmul(0, "self", "vec"),
    "Addmv": matmul(1, "mat", "vec"),
    "Dot": dot,
    "Convolution": convolution,
}
