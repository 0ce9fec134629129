"""What the few operations that may break saved: kept until the step, in case its gradient is not finite.

Behind a finite loss a gradient may still turn out not to be: the slope of a square root at 0, or a NaN that a
``where`` keeps from the loss. When that is known, what the operations saved is freed, and after the step the
weights are not finite either. So of each sort of graph it is learned once where such operations are, and these
alone are looked at in each pass: what they saved is kept alive, and not read unless it must be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import repeat
from operator import is_not
from typing import NamedTuple

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradwatch.diagnose.graph.catalogue import ROWS, Family, Row
from gradwatch.diagnose.graph.saved import read_saved
from gradwatch.diagnose.graph.walk import Node, is_leaf, lasting, operation, row_of

__all__ = ["Broken", "Witness"]


# These let through some elements of what came in only; what is below may be anything in the others.
_HIDES: tuple[Family, ...] = ("overwriting", "selection")
_HANDS_DOWN: tuple[Family, ...] = ("joint", "sum", "view")

# Whatever gradient comes in, and be it 0: times a NaN that these saved it is NaN.
_SPOILED_BY_NAN: tuple[Family, ...] = ("contraction", "distance", "function", "product")


# Of a function of the user's own the gradients are kept.
_IN, _OUT = "gradient_in", "gradient_out"


class Broken(NamedTuple):
    """An operation whose backward cannot have given anything finite.

    Attributes:
        root: where the backward pass began, or an operation behind that.
        node: the operation.
        saved: the name under which it saved what proves that.
        value: the value that does: where its slope is infinite, or NaN or Inf itself.
    """

    root: Node
    node: Node
    saved: str
    value: float


class _Step(NamedTuple):
    """One step down a graph: from which of those reached before, and by which input.

    Attributes:
        breaking: the operation, where it is one that may break; empty for any other.
        saved: under which names that may have saved what proves it; none for a function of the user's own.
    """

    origin: int
    input: int
    breaking: str
    saved: tuple[str, ...]


class Witness:
    """Keeps what those operations saved, from pass to pass, until it is told to forget.

    Args:
        new: told where a pass of a sort begins that has not been seen before.
    """

    # Operations that are looked at in one sort of graph, and steps down from the loss to reach them all.
    MOST, STEPS = 8, 256

    def __init__(self, new: Callable[[Node], object]) -> None:
        self._new = new
        self._ways: dict[str, list[_Step]] = {}
        # By the same names, whether something else has to hold the graph.
        self._fleeting: dict[str, bool] = {}
        # Of each operation that ran, what it saved, or its gradients, by name.
        self._kept: list[tuple[Node, Node, dict[str, object]]] = []
        self._handles: list[RemovableHandle] = []

    def attend(self, start: Tensor) -> Node:
        """A backward pass starts here; what is returned holds its graph."""
        root: Node = start.grad_fn
        name = root.name()
        if name not in self._ways:
            self._ways[name] = _learned(root, self.MOST, self.STEPS)
            self._fleeting[name] = lasting(start) is not root
            self._new(root)
        held = lasting(start) if self._fleeting[name] else root
        node: Node | None = root
        reached: list[Node | None] = []
        for origin, index, breaking, saved in self._ways[name]:
            # The first of them is the root itself.
            if reached:
                above = reached[origin]
                inputs = () if above is None else above.next_functions
                node = inputs[index][0] if index < len(inputs) else None
            reached.append(node)
            if breaking and node is not None and operation(node) == breaking:
                self._handles.append(node.register_hook(self._keeping(held, node, saved)))
        return held

    def forget(self) -> None:
        """Let go of all that is kept."""
        if self._handles or self._kept:
            while self._handles:
                self._handles.pop().remove()
            self._kept.clear()

    def learn_anew(self) -> None:
        """What was learned has not told anything: the graphs may be others by now."""
        self._ways.clear()

    def broken(self) -> Broken | None:
        """The first operation, in the order of the backward pass, that is proved to have broken it."""
        tensors = (
            (root, node, {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)})
            for root, node, values in self._kept
        )
        proofs = (_proof(*kept) for kept in tensors)
        return next((proof for proof in proofs if proof is not None), None)

    def _keeping(self, root: Node, node: Node, saved: tuple[str, ...]) -> Callable[..., None]:
        def hook(outgoing: tuple[Tensor | None, ...], incoming: tuple[Tensor | None, ...]) -> None:
            if any(map(is_not, incoming, repeat(None))):
                of_own = not saved and _is_own(node)
                values: dict[str, object] = {_IN: incoming[0], _OUT: outgoing[0]} if of_own else {}
                for name in saved:
                    values[name] = read_saved(node, name)
                self._kept.append((root, node, values))

        return hook


def _may_break(node: Node, hidden: bool) -> bool:
    """Whether an operation's backward may not be finite though the loss is.

    Args:
        node: the operation.
        hidden: whether something above it may keep what it made from the loss.
    """
    row = row_of(node)
    if row is None:
        return _is_own(node)
    return _singular(node, row) is not None or (hidden and row.family in _SPOILED_BY_NAN)


def _is_own(node: Node) -> bool:
    """Whether it is a function of the user's own, which saves what it likes."""
    return hasattr(node, "_forward_cls")


def _singular(
    node: Node, row: Row, kept: Mapping[str, Tensor] | None = None
) -> tuple[str, tuple[float, ...]] | None:
    """Where its slope is infinite, and its value is finite.

    Args:
        node: the operation.
        row: what is known of such.
        kept: what it saved, once it has run.
    """
    # A number stays with the operation; a tensor is gone by then.
    exponent: object = (kept or {}).get(row.exponent)
    if row.exponent and exponent is None:
        exponent = read_saved(node, row.exponent)
    if type(exponent) is Tensor and exponent.is_cpu and exponent.numel() == 1:
        exponent = exponent.item()  # a load
    is_root = isinstance(exponent, (int, float)) and 0 < exponent < 1
    return ("self", (0.0,)) if is_root else row.singular


def _names(node: Node) -> tuple[str, ...]:
    """Under which names an operation like this may save something, whichever arguments it was given."""
    row = ROWS.get(operation(node))
    rows = () if row is None else (row,) if row.without is None else (row, ROWS[row.without[1]])
    names = dict.fromkeys(name for each in rows for name in (*each.saved, each.result, each.exponent))
    return tuple(name for name in names if hasattr(type(node), f"_saved_{name}"))


def _learned(root: Node, most: int, steps: int) -> list[_Step]:
    """The shortest ways down to the operations that may break, as far as so many steps lead."""
    reached: list[tuple[Node, int, int, bool]] = [(root, 0, 0, False)]
    breaking: set[int] = set()
    met, kept = {root}, {0}
    for position, (node, _, _, hidden) in enumerate(reached):
        if _may_break(node, hidden) and not (node is root and _is_own(node)):
            way = {position}
            while min(way) not in kept:
                way.add(reached[min(way)][1])
            if len(kept | way) > steps or len(breaking) == most:
                break
            kept, breaking = kept | way, breaking | {position}
        row = row_of(node)
        hides = row is not None and (row.family in _HIDES or (hidden and row.family in _HANDS_DOWN))
        for index, (below, _) in enumerate(node.next_functions):
            if below is not None and below not in met and not is_leaf(below):
                met.add(below)
                reached.append((below, position, index, hides))
    if not breaking:
        return []
    places = {position: place for place, position in enumerate(sorted(kept))}
    ways = [(*reached[position][:3], position in breaking) for position in sorted(kept)]
    return [
        _Step(places[origin], index, *((operation(node), _names(node)) if it else ("", ())))
        for node, origin, index, it in ways
    ]


def _proof(root: Node, node: Node, saved: dict[str, Tensor]) -> Broken | None:
    row = row_of(node)
    if row is None:
        return _proof_by_gradients(root, node, saved)
    for name, at in filter(None, (_singular(node, row, saved), row.pole)):
        for value in at:
            if name in saved and bool((saved[name] == value).any()):
                return Broken(root, node, name, value)
    spoiled = (name for name, values in saved.items() if values.is_floating_point() and bool(values.isnan().any()))
    first = next(spoiled, None) if row.family in _SPOILED_BY_NAN else None
    return None if first is None else Broken(root, node, first, math.nan)


def _proof_by_gradients(root: Node, node: Node, kept: dict[str, Tensor]) -> Broken | None:
    if set(kept) != {_IN, _OUT} or not bool(kept[_IN].isfinite().all()) or bool(kept[_OUT].isfinite().all()):
        return None
    return Broken(root, node, _OUT, math.nan if bool(kept[_OUT].isnan().any()) else math.inf)
