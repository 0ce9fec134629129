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
from typing import Any

import numpy as np

from gradwatch.blocks import Block, FloatArray, Steps
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
    form = _form(shown, tuple(names.get(shown.optimizer, ())))
    columns = (
        map(str, shown.steps),
        map(_time, shown.times),
        _where_given("loop_step", shown.loop_steps),
        _exact(shown.norms[:, 0]),
        _exact(shown.norms[:, 1]),
        _where_given("max_norm", shown.limits),
        [', "clipped": true' if clipped else "" for clipped in shown.clipped],
        [_odd(*steps.pairs[at]) for at in shown.at],
        *_pairs(shown.norms[:, 3:]),
    )
    return list(map(form.__mod__, zip(*columns, strict=True)))


def _form(shown: Curves, names: Sequence[str]) -> str:
    """A line with ``%s`` in place of each column."""
    head = f'{{"kind": "step", "optimizer": {_in_a_form(shown.optimizer)}, "step": %s, "time": %s%s'
    norms = ', "norm_before": %s, "norm_after": %s%s%s%s'
    if shown.modules == names:
        return f'{head}{norms}, "modules": [{",".join(["%s"] * len(names))}]}}\n'
    by_name = ",".join(f"{_in_a_form(name)}:%s" for name in shown.modules)
    return f'{head}{norms}, "modules": {{{by_name}}}}}\n'


def _in_a_form(name: str) -> str:
    return encoded(name).replace("%", "%%")


def _where_given(name: str, values: Sequence[float | None]) -> list[str]:
    # Most steps have the same.
    words = {value: "" if value is None else f', "{name}": {encoded(value)}' for value in {*values}}
    return [words[value] for value in values]


def _odd(held: Sequence[StepRecord], place: int) -> str:
    if isinstance(held, Block):
        row = held.rows[place]
        usual = row.facts.as_usual and not row.skipped and row.loss_scale is None and not held.nonfinite[place]
        if usual and row.backward_passes == 1 and not row.lost_passes:
            return ""
    values = {name: getattr(held[place], name) for name in _USUAL}
    return "".join(f', "{name}": {encoded(value)}' for name, value in values.items() if value != _USUAL[name])


def _pairs(norms: FloatArray) -> Iterator[list[str]]:
    """``[steps, 2 * lines]`` -> a column for each of the report's lines."""
    before, after = norms[:, ::2], norms[:, 1::2]
    equal = (before == after) | (np.isnan(before) & np.isnan(after))
    words = _nine_digits(norms)
    for one, other, same in zip(words[::2], words[1::2], equal.T.tolist(), strict=True):
        yield [b if alike else f"[{b},{a}]" for b, a, alike in zip(one, other, same, strict=True)]


def _exact(norms: FloatArray) -> list[str]:
    return list(map(repr if np.isfinite(norms).all() else encoded, norms.tolist()))


def _nine_digits(norms: FloatArray) -> list[list[str]]:
    """``[steps, columns]`` -> each column."""
    numbers = norms.T.ravel().tolist()
    if np.isfinite(norms).all():
        words = ("%.9g " * len(numbers) % tuple(numbers)).split()
    else:
        words = [f"{number:.9g}" if math.isfinite(number) else encoded(number) for number in numbers]
    return [words[begin : begin + len(norms)] for begin in range(0, len(words), len(norms))]


def _time(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else encoded(value)
