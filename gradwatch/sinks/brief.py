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

from gradwatch.blocks import Alike, Block
from gradwatch.records import StepRecord
from gradwatch.sinks.curves import Curves, curves
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
}


def brief_lines(alike: Alike, names: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each step that one sequence holds; a record is made of those alone that are out of the ordinary.

    Args:
        alike: the steps.
        names: the report's lines by optimizer, as in the line of the run.
    """
    shown = curves(alike)
    head = f'{{"kind": "step", "optimizer": {encoded(shown.optimizer)}, "step": '
    by_name = None if shown.modules == tuple(names.get(shown.optimizer, ())) else shown.modules
    return [
        head + "".join(_parts(shown, place, row, by_name, _odd(alike, place))) + "}\n"
        for place, row in enumerate(shown.norms.tolist())
    ]


def _parts(
    shown: Curves, place: int, row: Sequence[float], by_name: Sequence[str] | None, odd: Mapping[str, Any]
) -> Iterator[str]:
    before, after, _, *lines = row
    yield f'{shown.steps[place]}, "time": {_time(shown.times[place])}'
    if shown.loop_steps[place] is not None:
        yield f', "loop_step": {shown.loop_steps[place]}'
    yield f', "norm_before": {encoded(before)}, "norm_after": {encoded(after)}'
    if shown.limits[place] is not None:
        yield f', "max_norm": {encoded(shown.limits[place])}'
    if shown.clipped[place]:
        yield ', "clipped": true'
    for name, value in odd.items():
        yield f', "{name}": {encoded(value)}'
    pairs = [_pair(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]
    if by_name is None:
        yield f', "modules": [{",".join(pairs)}]'
    else:
        named = (f"{encoded(name)}:{pair}" for name, pair in zip(by_name, pairs, strict=True))
        yield f', "modules": {{{",".join(named)}}}'


def _odd(alike: Alike, place: int) -> Mapping[str, Any]:
    held, at = alike.records, alike.places[place]
    if isinstance(held, Block):
        row = held.rows[at]
        usual = row.facts.as_usual and not row.skipped and row.loss_scale is None and not held.nonfinite[at]
        if usual and row.backward_passes == 1 and not row.lost_passes:
            return {}
    record: StepRecord = held[at]
    values = {name: getattr(record, name) for name in _USUAL}
    return {name: value for name, value in values.items() if value != _USUAL[name]}


def _pair(before: float, after: float) -> str:
    if before == after or (math.isnan(before) and math.isnan(after)):
        return _number(before)
    return f"[{_number(before)},{_number(after)}]"


def _number(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else encoded(value)


def _time(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else encoded(value)
