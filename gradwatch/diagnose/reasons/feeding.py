"""Whose output goes into whom: a loss that reaches one module around another, and parameters that nobody holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from gradwatch.causes import cause
from gradwatch.diagnose.graph.walk import Graph, Node, hands_on, is_leaf, spreading
from gradwatch.diagnose.look.calls import Calls
from gradwatch.diagnose.look.place import Place
from gradwatch.records import Cause

__all__ = ["Stray", "downstream", "shortcut", "strays"]

MOST_OF_THE_NORM = 0.999

# All that a module or an optimizer is known to hold, as one module.
_KNOWN = "known"


class Stray(NamedTuple):
    """A parameter that the loss reaches between tracked ones, and that no module or optimizer is known to hold.

    Layers in a plain Python list are such: they are called and get gradients, and ``parameters()`` does not give
    them.

    Attributes:
        name: what it is called, for want of a name: its shape, and the module whose output it works on.
        parameter: the tensor.
        version: how often it had been written to when it was found: whoever trains it writes to it.
    """

    name: str
    parameter: Tensor
    version: int


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
        weights = (graph.weight(node, index) for index in range(len(graph.inputs[node])))
        for met in {names[id(weight)] for weight in weights if id(weight) in names}:
            for other in below[node] - {met}:
                fed.setdefault(other, set()).add(met)
    return fed


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


def strays(root: Node, names: Mapping[int, str], plain: Callable[[], Mapping[int, str]]) -> list[Stray]:
    """Those in a graph; what comes before all that is tracked or after it may be somebody else's.

    A plain tensor that a module keeps may be an input that is asked for its gradient: it is one of these where
    each operation on it also takes what a tracked module has made.

    Args:
        root: where a backward pass begins.
        names: by ``id``, the parameters that a module or an optimizer is known to hold.
        plain: gives by ``id`` the names of the plain tensors that a module keeps and that ask for a gradient.
    """
    graph = Graph([root])
    strange = [leaf for key, leaf in graph.leaves.items() if key not in names]
    if not strange:
        # Nearly always: the modules need not be gone through.
        return []
    kept = plain()
    unknown = [leaf for leaf in strange if id(leaf.variable) in kept or _is_plain(leaf.variable)]
    if not unknown:
        return []
    each = {str(id(leaf.variable)): {id(leaf.variable)} for leaf in unknown}
    fed = downstream(graph, {_KNOWN: names.keys() & graph.leaves.keys(), **each})
    between = fed.get(_KNOWN, set()) & {name for name, feeds in fed.items() if _KNOWN in feeds}
    place = Place(graph, Calls([], lambda _: None), names=names)
    made = set(spreading(_users(graph, names.keys() & graph.leaves.keys()), partial(_takers, graph)))
    found = []
    for leaf in unknown:
        key = id(leaf.variable)
        if key not in kept:
            found += [_stray(leaf.variable, place, leaf)] if str(key) in between else []
        elif all(any(below in made for below, _ in graph.inputs[user]) for user in _users(graph, [key])):
            found.append(Stray(f"the plain tensor {kept[key]}", leaf.variable, leaf.variable._version))
    return found


def _takers(graph: Graph, node: Node) -> list[Node]:
    return [consumer.node for consumer in graph.consumers.get(node, ())]


def _users(graph: Graph, parameters: Iterable[int]) -> list[Node]:
    """What computes with parameters, given by ``id``, reshaped or cast at the most."""
    starts = [user for key in parameters for user in _takers(graph, graph.leaves[key])]
    met = spreading(starts, lambda at: _takers(graph, at) if hands_on(at) else ())
    return [user for user in met if not hands_on(user)]


def _stray(parameter: Tensor, place: Place, leaf: Node) -> Stray:
    shape = " x ".join(map(str, parameter.shape)) or "1"
    user = next(node for node in place.graph.above(leaf) if node is not leaf and not hands_on(node))
    name = f"a parameter of {shape} behind {place.behind(user) or 'the input'}"
    return Stray(name, parameter, parameter._version)


def _is_plain(variable: Tensor) -> bool:
    """Whether it is a parameter as somebody wrote it, rather than a piece of sharded ones."""
    in_pieces = hasattr(variable, "to_local") or getattr(variable, "_is_flat_param", False)
    return isinstance(variable, nn.Parameter) and not in_pieces
