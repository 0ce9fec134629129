"""The brief line of a step: its norms, those of the report's lines, and whatever is out of the ordinary.

``{"kind": "step", "optimizer": "actor", "step": 7, "time": ..., "norm_before": 5.2, "norm_after": 1.0,
"max_norm": 1.0, "clipped": true, "modules": [[5.1,0.98],[1,0.19]]}``

Under ``modules`` stand both norms of each line in the order of the ``"run"`` line, or by name where the lines have
become others; where both are equal there is one number. The norms of the whole are exact, those of lines have nine
digits, by which any two float32 numbers differ. What a step has in common with most is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from gradwatch.blocks import FloatArray, Steps
from gradwatch.records import StepRecord
from gradwatch.sinks.curves import Curves
from gradwatch.sinks.encoding import encoded

__all__ = ["brief_lines"]

# Fields of a record that are written where they are not these.
_USUAL: Mapping[str, Any] = {
    "backward_passes": 1,
    "skipped": False,
    "loss_scale": None,
    "missing_modules": (),
    "nonfinite": (),
    "lost_passes": 0,
    "lost": (),
}


def brief_lines(shown: Curves, steps: Steps, names: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each; a record is made of those alone that are out of the ordinary.

    Args:
        shown: what is drawn of some of the steps.
        steps: all of them.
        names: the report's lines by optimizer, as in the line of the run.
    """
    # A column after the other: it is the calls that take long, not the numbers.
    form = _form(shown.optimizer, shown.modules, tuple(names.get(shown.optimizer, ())))
    before, after = shown.norms[:, :2].T.tolist()
    columns = (
        shown.steps,
        _in_words("%.3f", shown.times),
        _where_given("loop_step", shown.loop_steps),
        _exact(before),
        _exact(after),
        _where_given("max_norm", shown.limits),
        [', "clipped": true' if clipped else "" for clipped in shown.clipped],
        [_odd(*steps.pairs[at]) if odd else "" for at, odd in zip(shown.at, shown.odd, strict=True)],
        *_pairs(shown.norms[:, 3:]),
    )
    return list(map(form.__mod__, zip(*columns, strict=True)))


@lru_cache(maxsize=64)
def _form(optimizer: str, modules: tuple[str, ...], names: tuple[str, ...]) -> str:
    """A line with ``%s`` in place of each column."""
    head = f'{{"kind": "step", "optimizer": {_in_a_form(optimizer)}, "step": %s, "time": %s%s'
    norms = ', "norm_before": %s, "norm_after": %s%s%s%s'
    if modules == names:
        return f'{head}{norms}, "modules": [{",".join(["%s"] * len(names))}]}}\n'
    by_name = ",".join(f"{_in_a_form(name)}:%s" for name in modules)
    return f'{head}{norms}, "modules": {{{by_name}}}}}\n'


def _in_a_form(name: str) -> str:
    return encoded(name).replace("%", "%%")


def _where_given(name: str, values: Sequence[float | None]) -> list[str]:
    # Most steps have the same.
    words = {value: "" if value is None else f', "{name}": {encoded(value)}' for value in {*values}}
    return [words[value] for value in values]


def _odd(held: Sequence[StepRecord], place: int) -> str:
    values = {name: getattr(held[place], name) for name in _USUAL}
    return "".join(f', "{name}": {encoded(value)}' for name, value in values.items() if value != _USUAL[name])


def _pairs(norms: FloatArray) -> Iterator[list[str]]:
    """``[steps, 2 * lines]`` -> a column for each of the report's lines."""
    words = _in_words("%.9g", norms.T.ravel().tolist())
    columns = [words[begin : begin + len(norms)] for begin in range(0, len(words), len(norms))]
    for before, after in zip(columns[::2], columns[1::2], strict=True):
        yield [b if b == a else f"[{b},{a}]" for b, a in zip(before, after, strict=True)]


def _exact(numbers: Sequence[float]) -> Sequence[object]:
    return numbers if _are_finite(numbers) else list(map(encoded, numbers))


def _in_words(form: str, numbers: Sequence[float]) -> list[str]:
    if _are_finite(numbers):
        return (f"{form} " * len(numbers) % tuple(numbers)).split()
    return [form % number if math.isfinite(number) else encoded(number) for number in numbers]


def _are_finite(numbers: Sequence[float]) -> bool:
    """Whether all are; where their sum is too large it says no, and each is asked by itself."""
    return math.isfinite(sum(numbers))
