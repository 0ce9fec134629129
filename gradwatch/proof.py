"""The evidence of a cause in words: what a person is told of it, two numbers at most, the most telling first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gradwatch.printing import called

__all__ = ["plainly", "proof"]

Evidence = Mapping[str, float | int | str]

# So many numbers can be taken in while reading a sentence.
_MOST_NUMBERS = 2

# What is said by itself, or is of use to programs alone.
_UNSAID = frozenset(
    ("reason", "seen_at_step", "input", "beside", "direction", "silent_norm", "calls_of_enclosing_modules")
)

_OPERATION = re.compile(r"Backward\d*\b|torch::autograd::")

_ONE = re.compile(r"\b1 ((?:backward )?(?:pass(?=es)|unit|time|parameter|operation|gradient|element))(?:es|s)\b")

# Names, and how what goes by them is said, the most telling first: where all of the names are there.
_PHRASES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("operation",), "operation {}"),
    (("dead_units", "units"), "{} of {} units dead"),
    (("share", "silent"), "{} of the squared norm, while {} is silent"),
    (("lost_passes", "backward_passes"), "{} of {} backward passes"),
    (("share_saturated",), "{} saturated"),
    (("share_flat",), "{} flat"),
    (("share_masked",), "{} masked"),
    (("share_ignored",), "{} of the targets ignored"),
    (("share_one_hot",), "one candidate has all the weight in {} of the rows"),
    (("share_of_zeros",), "{} exactly 0"),
    (("share_at_0",), "{} at 0"),
    (("share_at_1",), "{} at 1"),
    (("share_below",), "{} below the lower limit"),
    (("share_above",), "{} above the upper limit"),
    (("share_beyond_9",), "{} of the inputs beyond 9"),
    (("smallest_of_type",), "the smallest number of its type is {}"),
    (("decades_lost", "decades_lost_here"), "{} decades lost, {} of them here"),
    (("decades_lost", "operations_that_lose"), "{} decades lost over {} operations"),
    (("parameters",), "{} parameters"),
    (("calls",), "called {} times"),
    (("calls_in_grad_mode",), "{} times with gradients on"),
    (("in_graph_of_loss",), "{} times in the graph of the loss"),
    (("passes_that_reached_none_of_it", "backward_passes"), "{0} backward passes reached none of it"),
    (("backward_passes",), "{} backward passes"),
    (("norm_before", "norm_after"), "norm {} after backward, {} at the step"),
    (("norm",), "norm {}"),
    (("norm_returned",), "torch's norm {}"),
    (("limit",), "limit {}"),
    (("missing",), "{} gradients missing"),
    (("loss",), "loss {}"),
    (("output",), "its output {}"),
    (("largest_factor",), "largest factor {}"),
    (("input_min", "input_max"), "input from {} to {}"),
    (("output_min", "output_max"), "output from {} to {}"),
    (("input_nearest_0",), "the input nearest to 0 is {}"),
    (("output_nearest_0",), "the output nearest to 0 is {}"),
    (("computed_input_at_most",), "input up to {}"),
    (("input_at_most",), "input up to {}"),
    (("largest_of_type",), "the largest number of its type is {}"),
    (("largest_given",), "largest gradient {}"),
    (("largest_incoming", "largest_outgoing"), "largest gradient going in {}, coming out {}"),
    (("largest_incoming",), "largest gradient going in {}"),
    (("elements",), "{} elements"),
    (("dtype",), "in {}"),
    (("factor",), "the factor: {}"),
    (("factor_made_by",), "made by {}"),
    (("factor_made_in",), "made in {}"),
    (("in_output_of",), "in the output of {}"),
    (("behind",), "fed by {}"),
    (("first_nonfinite_input_of",), "first seen as an input of {}"),
    (("hidden_by",), "hidden by {}"),
    (("first",), "the first {}"),
    (("which",), "most by {}"),
    (("ruled_out",), "ruled out: {}"),
    (("suspects",), "suspected: {}"),
)


def plainly(operation: str) -> str:
    """The name of an operation without what autograd adds to it."""
    return _OPERATION.sub("", operation)


def proof(evidence: Evidence, where: str = "") -> Iterator[str]:
    """The phrases that are said of it, in the order of how much they tell; not of where it was."""
    left, numbers = {name: value for name, value in evidence.items() if value != where}, 0
    if "dead_units" in left:
        left.pop("share", None)
    for names, phrase in (*_PHRASES, *(((name,), f"{_spaced(name)} {{}}") for name in evidence)):
        values = [left[name] for name in names if name in left]
        if len(values) < len(names) or (len(names) == 1 and names[0] in _UNSAID):
            continue
        count = sum(not isinstance(value, str) for value in values)
        if numbers + count > _MOST_NUMBERS:
            continue
        for name in names:
            del left[name]
        # Nothing is below a limit where all is above the other one.
        if not (names[0].startswith("share") and values == [0]):
            numbers += count
            yield _counted(phrase.format(*map(_said, names, values)))


def _said(name: str, value: float | int | str) -> str:
    if isinstance(value, str):
        return called(plainly(value))
    if name.startswith("share"):
        return "all" if value == 1 and name != "share" else f"{100 * value:.3g} %"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _counted(phrase: str) -> str:
    phrase = phrase.replace("called 0 times", "never called").replace("0 times", "never")
    return _ONE.sub(r"1 \1", phrase)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
