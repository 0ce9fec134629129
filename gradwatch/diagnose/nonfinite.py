"""Which operation made NaN or Inf out of finite numbers: first in the forward pass, else in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradwatch.diagnose.bounds import Bounds, cannot_break, is_shifted
from gradwatch.diagnose.forward import Call
from gradwatch.diagnose.numbers import Extent, arithmetic, extent
from gradwatch.diagnose.saved import read_saved, saved_names
from gradwatch.diagnose.site import Finding
from gradwatch.diagnose.walk import Graph, Node, operation

__all__ = ["Forward", "Values", "found_in_forward", "input_range", "values_of"]

_FLOAT32 = torch.finfo(torch.float32).max
# Under these names an operation saves what it made; everything else that it saves came into it.
_MADE = ("result", "result0", "output")
# By the name under which it is saved, the number of the input that it is.
_INPUT_OF = {
    "self": 0, "input": 0, "mat1": 1, "other": 1, "mat2": 1, "target": 1, "weight": 1, "exponent": 1, "query": 0,
    "key": 1, "value": 2,
}  # fmt: skip
_INPUT_OF_ADDMM = {"mat1": 1, "mat2": 2}

# What an operation makes of what it saved, where it does not save its result.
_AGAIN: Mapping[str, Callable[..., Tensor]] = {
    "Log": torch.log,
    "Log2": torch.log2,
    "Log10": torch.log10,
    "Log1P": torch.log1p,
    "Acos": torch.acos,
    "Asin": torch.asin,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Cosh": torch.cosh,
    "Sinh": torch.sinh,
    "Erfinv": torch.erfinv,
    "Lgamma": torch.lgamma,
}
_AGAIN_OF_TWO: Mapping[str, Callable[..., Tensor]] = {"Mul": torch.mul, "Div": torch.div}


class Values(NamedTuple):
    """What is known of the numbers that went into and came out of one operation in the forward pass.

    Attributes:
        node: the operation.
        number: place in the order in which operations were made.
        name: name of the operation.
        inputs: range of what it saved of its inputs, by the name under which it did.
        fed_by: by the same names, where they tell which input it is: the operation that made it; None for what is
            not computed here.
        output: range of what it made; None where that is not known.
        limit: largest finite number of the narrowest type that it saved.
        at_most: a bound of the size of what came in, where its range is not known.
        shifted: whether a constant was put into what came in, which the bound knows nothing of.
    """

    node: Node
    number: int
    name: str
    inputs: Mapping[str, Extent]
    fed_by: Mapping[str, Node | None]
    output: Extent | None
    limit: float
    at_most: float | None = None
    shifted: bool = False


def values_of(graph: Graph, node: Node) -> Values:
    """Read an operation's saved tensors; in its own hook, since they are freed after it ran."""
    with arithmetic():
        tensors = _saved_numbers(node)
        made = _made(node, tensors)
        inputs = {name: extent(value) for name, value in tensors.items() if not name.startswith(_MADE)}
        return Values(
            node,
            node._sequence_nr(),
            node.name(),
            inputs,
            _fed_by(graph, node, inputs),
            None if made is None else extent(made),
            min((torch.finfo(value.dtype).max for value in tensors.values()), default=_FLOAT32),
        )


def _saved_numbers(node: Node) -> dict[str, Tensor]:
    """The tensors that an operation saved, but for indices; a factor may be of whole numbers, or a mask."""
    saved = {name: read_saved(node, name) for name in saved_names(node)}
    tensors = {name: value.detach() for name, value in saved.items() if isinstance(value, Tensor)}
    if operation(node) in _AGAIN_OF_TWO:
        tensors = {name: _real(value) for name, value in tensors.items()}
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


def _real(values: Tensor) -> Tensor:
    return values if values.is_floating_point() or values.is_complex() else values.float()


class Forward:
    """What is known of the forward pass behind a loss that is not finite.

    Args:
        graph: of the backward pass.
        seen: what the operations saved.
        calls: of the modules.
        loss: the largest absolute value of what the pass started from.
    """

    def __init__(self, graph: Graph, seen: Mapping[Node, Values], calls: Sequence[Call], loss: float) -> None:
        self._graph = graph
        self._seen = seen
        self._made = _outputs(seen, calls)
        if len(graph.roots) == 1:
            self._made.setdefault(graph.roots[0], Extent(loss, loss, loss))
        self._limit = min((values.limit for values in seen.values()), default=_FLOAT32)
        self._suspects = self._not_known_finite()
        self._bounds = Bounds(graph, {node: values.inputs for node, values in seen.items()}, self._made)

    def first_operation(self) -> Values | None:
        """The first operation known to have made something not finite of inputs that were all finite.

        None where it cannot be proved: an input's range is not known, or was not finite.
        """
        broken = [node for node in self._suspects if node in self._seen and not self._finite(node)]
        if not broken:
            return None
        first = min(broken, key=lambda node: self._seen[node].number)
        values = self._seen[first]._replace(output=self._made[first])
        if not self._fed_finite(first, values) or cannot_break(first, self._made[first]):
            return None
        fed = [below for below, _ in self._graph.inputs[first] if below is not None]
        shifted = any(is_shifted(self._graph, below) for below in fed)
        if not shifted and self._bounds.of_inputs(first) < self._limit:
            return None  # numbers of these sizes do not overflow there: something else wrote to what it made
        if values.inputs or not fed:
            return values
        return values._replace(at_most=max(map(self._bounds.of, fed)), shifted=shifted)

    def entrance(self) -> Values | None:
        """The first operation that NaN or Inf came into from outside the graph, as from the data."""
        entered = (values for values in self._seen.values() if self._enters(values))
        return min(entered, key=lambda values: values.number, default=None)

    def _enters(self, values: Values) -> bool:
        return any(made_by is None and not values.inputs[name].finite for name, made_by in values.fed_by.items())

    def first_call(self, calls: Sequence[Call]) -> Call | None:
        """The first call of a module, innermost, that made something not finite of finite inputs and weights."""
        for call in calls:  # in the order in which they were left: inner ones come before outer ones
            leads_on = not call.made or any(node in self._suspects for node in call.made)
            if leads_on and not all(values.finite for values in call.outputs):
                sound = all(values.finite or values.mask for values in call.inputs) and _finite_parameters(call)
                return call if sound else None
        return None

    def _not_known_finite(self) -> set[Node]:
        """What the loss can have its NaN or Inf from: below it, through nothing that is known to be finite."""
        waiting = list(self._graph.roots)
        suspects = set(waiting)
        while waiting:
            for below, _ in self._graph.inputs.get(waiting.pop(), ()):
                if below is not None and below not in suspects and not self._finite(below, unknown=False):
                    suspects.add(below)
                    waiting.append(below)
        return suspects

    def _finite(self, node: Node, unknown: bool = True) -> bool:
        values = self._made.get(node)
        return unknown if values is None else values.finite

    def _fed_finite(self, node: Node, values: Values) -> bool:
        """Whether all that came in was finite: it was saved, or its size has a bound."""
        if not all(entering.finite for entering in values.inputs.values()):
            return False
        read = {producer for producer in values.fed_by.values() if producer is not None}
        others = (below for below, _ in self._graph.inputs[node] if below is not None and below not in read)
        return all(self._bounds.of(below) < self._limit for below in others)


def input_range(node: Node) -> Mapping[str, float]:
    """Smallest and largest value of what an operation saved of its inputs, else of what it made."""
    with arithmetic():
        for name in ("self", "input", "other", "mat1", *_MADE, *saved_names(node)):
            value = read_saved(node, name)
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                low, high, nearest = extent(value)
                kind = "output" if name.startswith(_MADE) else "input"
                return {f"{kind}_min": low, f"{kind}_max": high, f"{kind}_nearest_0": nearest}
    return {}


def found_in_forward(values: Values) -> Finding:
    """The evidence of an operation that made something not finite in the forward pass."""
    ranges = list(values.inputs.values())
    evidence: dict[str, float | int | str] = {"operation": values.name, "direction": "forward"}
    if ranges:
        evidence["input_min"] = min(low for low, _, _ in ranges)
        evidence["input_max"] = max(high for _, high, _ in ranges)
        evidence["input_nearest_0"] = min(nearest for _, _, nearest in ranges)
    if values.at_most is not None:
        evidence["computed_input_at_most" if values.shifted else "input_at_most"] = values.at_most
    if values.shifted:
        evidence["reason"] = "a constant was put into its input, as a mask is: look at that"
    if values.output is not None:
        evidence["output"] = _what(values.output)
    return Finding("nonfinite-op", evidence)


def _made(node: Node, saved: Mapping[str, Tensor]) -> Tensor | None:
    for name in _MADE:
        if name in saved:
            return saved[name]
    name = operation(node)
    if name in _AGAIN and "self" in saved:
        return _AGAIN[name](saved["self"])
    if name in _AGAIN_OF_TWO and "self" in saved and "other" in saved:
        return _AGAIN_OF_TWO[name](saved["self"], saved["other"])
    if name == "Div" and "other" in saved and bool((saved["other"] == 0).any()):
        return saved["other"].new_tensor([-math.inf, math.inf])  # or NaN, if what is divided by 0 is 0 as well
    exponent = read_saved(node, "exponent")
    if name == "Pow" and "self" in saved and isinstance(exponent, (int, float)):
        return saved["self"].pow(exponent)
    return None


def _fed_by(graph: Graph, node: Node, names: Iterable[str]) -> Mapping[str, Node | None]:
    """What made the inputs that are saved under some names; of the names that tell which input it is."""
    if operation(node).endswith("Backward"):
        return {}  # what a slope of a slope saves as "self" is not its first input
    numbers = _INPUT_OF_ADDMM if operation(node) == "Addmm" else _INPUT_OF
    inputs = graph.inputs[node]
    known = ((name, numbers[name]) for name in names if name in numbers)
    return {name: inputs[index][0] if index < len(inputs) else None for name, index in known}


def _outputs(seen: Mapping[Node, Values], calls: Sequence[Call]) -> dict[Node, Extent]:
    """Ranges of what operations made: as they saved it, as the next one did, or as a module gave it."""
    made = {node: values.output for node, values in seen.items() if values.output is not None}
    for values in seen.values():
        for name, producer in values.fed_by.items():
            if producer is not None:
                made.setdefault(producer, values.inputs[name])
    for call in calls:
        for node, output in zip(call.made, call.outputs, strict=False):
            if node is not None:
                made.setdefault(node, output)
    return made


def _finite_parameters(call: Call) -> bool:
    tensors = [*call.module.parameters(recurse=False), *call.module.buffers(recurse=False)]
    return all(extent(tensor).finite for tensor in tensors if tensor.is_floating_point())


def _what(values: Extent) -> str:
    if math.isnan(values.low):
        return "NaN"
    if -values.low == values.high == math.inf:
        return "Inf or NaN"
    return "Inf" if values.high == math.inf else "-Inf"
