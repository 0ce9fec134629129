"""Parameters that the loss reaches between tracked ones, and that no module and no optimizer is known to hold.

Layers in a plain Python list are such: they are called and get gradients, and ``parameters()`` does not give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from gradwatch.diagnose.graph.walk import Consumer, Graph, Node, hands_on, is_leaf
from gradwatch.diagnose.look.calls import Calls
from gradwatch.diagnose.look.place import Place

__all__ = ["Stray", "strays"]


class Stray(NamedTuple):
    """Such a parameter.

    Attributes:
        name: what it is called, for want of a name: its shape, and the module whose output it works on.
        parameter: the tensor.
        version: how often it had been written to when it was found: whoever trains it writes to it.
    """

    name: str
    parameter: Tensor
    version: int


def strays(root: Node, names: Mapping[int, str], kept: Mapping[int, str]) -> list[Stray]:
    """Those in a graph; what comes before all that is tracked or after it may be somebody else's.

    A plain tensor that a module keeps may be an input that is asked for its gradient: it is one of these where
    each operation on it also takes what a tracked module has made.

    Args:
        root: where a backward pass begins.
        names: by ``id``, the parameters that a module or an optimizer is known to hold.
        kept: by ``id``, the names of the plain tensors that a module keeps and that ask for a gradient.
    """
    graph = Graph([root])
    unknown = [
        leaf
        for leaf in graph.leaves.values()
        if id(leaf.variable) not in names and (id(leaf.variable) in kept or _is_plain(leaf.variable))
    ]
    if not unknown:
        return []
    place = Place(graph, Calls([], lambda _: None), names=names)
    known = {leaf for leaf in graph.leaves.values() if id(leaf.variable) in names}
    fed, feeding = _fed_by(graph, known), _feeding(graph, known)
    found = []
    for leaf in unknown:
        if id(leaf.variable) in kept:
            made = _made_by(graph, known)
            if all(any(below in made for below, _ in graph.inputs[node]) for node, _ in _users(graph, leaf)):
                name = f"the plain tensor {kept[id(leaf.variable)]}"
                found.append(Stray(name, leaf.variable, leaf.variable._version))
            continue
        between = [node for node, _ in _users(graph, leaf) if node in fed and node in feeding]
        if between:
            shape = " x ".join(map(str, leaf.variable.shape)) or "1"
            name = f"a parameter of {shape} behind {place.behind(between[0]) or 'the input'}"
            found.append(Stray(name, leaf.variable, leaf.variable._version))
    return found


def _is_plain(variable: Tensor) -> bool:
    """Whether it is a parameter as somebody wrote it, rather than a piece of sharded ones."""
    in_pieces = hasattr(variable, "to_local") or getattr(variable, "_is_flat_param", False)
    return isinstance(variable, nn.Parameter) and not in_pieces


def _users(graph: Graph, leaf: Node) -> list[Consumer]:
    """What takes a parameter, transposed or cast at the most."""
    users: list[Consumer] = []
    waiting = list(graph.consumers[leaf])
    while waiting:
        user = waiting.pop()
        users.append(user)
        waiting += graph.consumers[user.node] if hands_on(user.node) else []
    return users


def _made_by(graph: Graph, known: set[Node]) -> set[Node]:
    """What is computed with something known: more than a view of it."""
    made: set[Node] = set()
    meets = {node for leaf in known for node, _ in _users(graph, leaf) if not hands_on(node)}
    for node in graph.order:
        if node in meets or any(below in made for below, _ in graph.inputs[node]):
            made.add(node)
    return made


def _fed_by(graph: Graph, known: set[Node]) -> set[Node]:
    """What has something known below it."""
    fed: set[Node] = set()
    for node in graph.order:
        if any(below in known or below in fed for below, _ in graph.inputs[node]):
            fed.add(node)
    return fed


def _feeding(graph: Graph, known: set[Node]) -> set[Node]:
    """What goes into an operation that takes something known beside it."""
    meets = {node for leaf in known for node, _ in _users(graph, leaf)}
    feeding: set[Node] = set()
    for node in reversed(graph.order):
        above = (consumer.node for consumer in graph.consumers[node])
        if not is_leaf(node) and any(other in feeding or other in meets for other in above):
            feeding.add(node)
    return feeding
