"""The numbers that went into and came out of one operation in the forward pass, as far as it saved them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from gradwatch.diagnose.graph.catalogue import UNKNOWN, Row
from gradwatch.diagnose.graph.saved import read_saved, saved_names
from gradwatch.diagnose.graph.walk import Graph, Node, row_of
from gradwatch.diagnose.look.numbers import Extent, arithmetic, extent

__all__ = ["Values", "values_of"]

# Under these names an operation saves what it made; everything else that it saves came into it.
_MADE = ("result", "result0", "output")


class Values(NamedTuple):
    """What is known of one operation's numbers.

    Attributes:
        inputs: range of what it saved of its inputs, by the name under which it did.
        fed_by: by the same names, where they tell which input it is: the operation that made it; None for what is
            not computed here.
        output: range of what it made; None where that is not known.
    """

    inputs: Mapping[str, Extent]
    fed_by: Mapping[str, Node | None]
    output: Extent | None

    @property
    def ranges(self) -> dict[str, float | int | str]:
        """As evidence: the smallest and the largest value that came in, else of what was made."""
        known, of = list(self.inputs.values()), "input"
        if not known and self.output is not None:
            known, of = [self.output], "output"
        if not known:
            return {}
        # Of what is not finite itself, and of that alone: of NaN and a number there is no smallest.
        known = [each for each in known if not each.finite][:1] or known
        lows, highs, nearest = zip(*known, strict=True)
        return {f"{of}_min": min(lows), f"{of}_max": max(highs), f"{of}_nearest_0": min(nearest)}


def values_of(graph: Graph, node: Node) -> Values:
    """Read an operation's saved tensors; in its own hook, since they are freed after it ran."""
    with arithmetic():
        row, saved = row_of(node) or UNKNOWN, _saved_numbers(node)
        made = _made(node, row, saved)
        inputs = {name: extent(value) for name, value in saved.items() if not name.startswith(_MADE)}
        feeding = dict(zip(row.saved, (below for below, _ in graph.inputs[node]), strict=False))
        fed_by = {name: feeding.get(name) for name in inputs if name in row.saved}
        return Values(inputs, fed_by, None if made is None else extent(made))


def _saved_numbers(node: Node) -> dict[str, Tensor]:
    """The tensors that an operation saved, but for indices; a factor may be of whole numbers, or a mask."""
    row, found = row_of(node), {}
    for name in saved_names(node):
        value = read_saved(node, name)
        if isinstance(value, Tensor):
            whole = not (value.is_floating_point() or value.is_complex())
            found[name] = value.detach().float() if whole and row and row.family == "product" else value.detach()
    return {name: value for name, value in found.items() if value.is_floating_point()}


def _made(node: Node, row: Row, saved: Mapping[str, Tensor]) -> Tensor | None:
    for name in _MADE:
        if name in saved:
            return saved[name]
    if row.again is not None:
        inputs = [saved.get(name, read_saved(node, name)) for name in row.needed]
        if not any(value is None for value in inputs):
            return row.again(*inputs)
    name, at = row.pole or ("", ())
    if name in saved and any(bool((saved[name] == value).any()) for value in at):
        return saved[name].new_tensor([-math.inf, math.inf])  # or NaN, if what is divided by 0 is 0 as well
    return None
