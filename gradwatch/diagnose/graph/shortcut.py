"""A loss that reaches one module by a path around another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

from gradwatch.causes import cause
from gradwatch.diagnose.graph.walk import Graph, Node, is_leaf
from gradwatch.records import Cause

__all__ = ["downstream", "shortcut"]

MOST_OF_THE_NORM = 0.999


def shortcut(
    norms: Mapping[str, float], fed: Mapping[str, Set[str]], *, most: float = MOST_OF_THE_NORM
) -> Cause | None:
    """One module holds nearly all of an optimizer's squared norm while a module that it feeds gets nothing.

    The loss then reaches the first around the second.

    Args:
        norms: L2 norm of each module of one optimizer; those that are not finite count as none.
        fed: name of a module -> names of the modules that it feeds, as ``Diagnosis.downstream``.
        most: share of the squared norm above which one module holds nearly all of it.
    """
    squares = {name: norm * norm for name, norm in norms.items() if math.isfinite(norm)}
    total = math.fsum(squares.values())
    if total == 0.0:
        return None
    name = max(squares, key=lambda each: squares[each])
    silent = sorted(other for other in fed.get(name, ()) if norms.get(other) == 0.0)
    if not silent or squares[name] / total <= most:
        return None
    return cause(
        "shortcut", name, share=squares[name] / total, norm=norms[name], silent=", ".join(silent), silent_norm=0.0
    )


def downstream(graph: Graph, modules: Mapping[str, Set[int]]) -> dict[str, set[str]]:
    """Which modules feed which others, by the graph.

    Args:
        graph: of a backward pass.
        modules: name -> ``id`` of its parameters.

    Returns:
        Name -> names of the modules with a parameter that meets something computed from this one's.
    """
    names = {parameter: name for name, parameters in modules.items() for parameter in parameters}
    below: dict[Node, frozenset[str]] = {}
    fed: dict[str, set[str]] = {}
    for node in graph.order:
        under = [below[made_by] for made_by, _ in graph.inputs[node] if made_by is not None]
        own = {names[id(node.variable)]} if is_leaf(node) and id(node.variable) in names else set()
        # Of most nodes one input holds everything: the same set is handed on, not copied.
        widest = max(under, key=len, default=frozenset())
        below[node] = widest if not own and all(each <= widest for each in under) else frozenset(own).union(*under)
        _note_meetings(graph, node, names, below, fed)
    return fed


def _note_meetings(
    graph: Graph,
    node: Node,
    names: Mapping[int, str],
    below: Mapping[Node, frozenset[str]],
    fed: dict[str, set[str]],
) -> None:
    for index in range(len(graph.inputs[node])):
        weight = graph.weight(node, index)
        name = None if weight is None else names.get(id(weight))
        if name is None:
            continue
        for made_by, _ in graph.inputs[node]:
            for other in below[made_by] if made_by is not None else ():
                if other != name:
                    fed.setdefault(other, set()).add(name)
