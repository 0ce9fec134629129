"""Why a gradient is not finite though the loss was: told after the pass, from what a witness has kept of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from gradwatch.causes import cause
from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf, row_of
from gradwatch.diagnose.look.calls import Calls
from gradwatch.diagnose.look.numbers import arithmetic, in_words, largest
from gradwatch.diagnose.look.place import Place
from gradwatch.diagnose.look.site import Evidence
from gradwatch.diagnose.look.witness import Broken
from gradwatch.diagnose.reasons.bounds import is_shifted
from gradwatch.records import Cause

__all__ = ["behind_finite_loss"]

_CAME_IN = "a NaN came in with data or targets, and only the loss was kept from it"
_WAS_THERE = "what came into it was NaN already, and only the loss was kept from it"
_BEFORE = "Mask what is NaN in data or targets before this operation, not after it: 0 times NaN is NaN."
_AGAIN = "it is looked at when it happens again, if the weights are still finite: with guard='skip' they are"


def behind_finite_loss(
    root: Node, loss: float, broken: Broken | None, parameters: Mapping[str, Tensor]
) -> Mapping[str, Cause]:
    """By name of a parameter, the cause of its gradient's not being finite; empty where all are finite.

    Args:
        root: where the last pass began.
        loss: what that began with; NaN where that was not read.
        broken: the operation that is proved to have broken it.
        parameters: by name, those to be explained; their gradients are read.
    """
    graph = Graph([root if broken is None else broken.root])
    with arithmetic():
        bad = {name: p for name, p in parameters.items() if not math.isfinite(largest(p.grad))}
    names = {id(parameter): name for name, parameter in parameters.items()}
    place = Place(graph, Calls([], lambda _: None), names=names)
    reached = (
        set() if broken is None else {id(leaf.variable) for leaf in graph.below(broken.node) if is_leaf(leaf)}
    )
    found = {}
    for name, parameter in bad.items():
        proved = broken if id(parameter) in reached else None
        found[name] = _unproved(graph, loss) if proved is None else _proved(graph, place, loss, proved)
    return found


def _proved(graph: Graph, place: Place, loss: float, broken: Broken) -> Cause:
    node, row = broken.node, row_of(broken.node)
    evidence: Evidence = {"operation": node.name(), "direction": "backward", "loss": in_words(loss)}
    evidence[broken.saved if row is None else f"saved_{broken.saved}"] = in_words(broken.value)
    if not math.isnan(broken.value) or row is None:
        return place.cause("nonfinite-op", node, evidence)
    constant = any(made_by is None or is_shifted(graph, made_by) for made_by, _ in graph.inputs[node])
    evidence["reason"] = _CAME_IN if constant else _WAS_THERE
    evidence["hidden_by"] = ", ".join(consumer.node.name() for consumer in graph.consumers[node])
    return replace(place.cause("nonfinite-op", node, evidence), remedy=_BEFORE)


def _unproved(graph: Graph, loss: float) -> Cause:
    """No operation that could be looked at did it."""
    own = sorted({node.name() for node in graph.order if hasattr(node, "_forward_cls")})
    return cause(
        "unknown",
        "(backward)",
        loss=in_words(loss),
        ruled_out="nonfinite-loss, a slope that is infinite where a value is not, NaN behind a mask",
        suspects=", ".join([*own, "an overflow, or a hook"]),
        reason=_AGAIN,
    )
