"""What one optimizer holds: its parameters as the columns of a row, with the names they are reported under."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.blocks import BoolArray, Columns, FloatArray, Layout
from gradwatch.measure.lines import Lines
from gradwatch.measure.sharding.shards import Shards

__all__ = ["Given", "OptimizerParameters", "RowForm", "addresses", "parameters_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What a clip call was given of an optimizer's parameters.

    Attributes:
        columns: each once, in order.
        places: the same as an array, one and the same object for calls that are given the same.
        repeated: those that were given more than once.
        strangers: it was given others besides.
    """

    columns: tuple[int, ...]
    places: Columns
    repeated: tuple[int, ...]
    strangers: bool


class RowForm(NamedTuple):
    """What a row of norms is, for a step that may outlive the parameters.

    Attributes:
        layout: what the columns are called.
        sharded: columns of which this rank holds a part only.
        shares: for each of these, the weight of this rank's squares in the sum over ranks.
    """

    layout: Layout
    sharded: Columns
    shares: FloatArray


class _Known(dict[bytes, Given]):
    """By the addresses of some parameters, which columns they are: worked out at first sight."""

    # A loop may clip others at each step, such as the experts that were drawn.
    MOST = 64

    def __init__(self, column: Mapping[int, int]) -> None:
        super().__init__()
        self._column = column

    def __missing__(self, ids: bytes) -> Given:
        if len(self) >= self.MOST:
            self.clear()
        each = list(map(self._column.get, array("q", ids)))
        times = Counter(column for column in each if column is not None)
        repeated = tuple(column for column, count in times.items() if count > 1)
        given = self[ids] = Given(tuple(times), np.array(list(times), dtype=np.intp), repeated, None in each)
        return given


class OptimizerParameters:
    """The parameters that an optimizer holds at one time.

    Args:
        name: name of the optimizer.
        optimizer: the optimizer.
        lines: how its parameters are named and grouped.
        shards: how they lie on the ranks.

    Attributes:
        ids: addresses of what the optimizer held, to compare with what it holds later.
        parameters: each distinct one, in the optimizer's order: the columns of a row.
        row: what the columns of a row are.
        given: by the addresses of some parameters, which columns they are.
    """

    # Other optimizers that are remembered.
    MOST_OTHERS = 64

    def __init__(self, name: str, optimizer: Optimizer, lines: Lines, shards: Shards) -> None:
        self.ids = addresses(parameters_of(optimizer))
        labels: dict[int, str] = {}
        held: dict[int, Tensor] = {}
        for g, group in enumerate(optimizer.param_groups):
            for i, parameter in enumerate(group["params"]):
                if parameter.is_meta:
                    # Its gradients have no values: there is nothing to measure, and nobody trains it.
                    continue
                held.setdefault(id(parameter), parameter)
                labels.setdefault(id(parameter), lines.names.get(id(parameter), f"group{g}.param{i}"))
        self.parameters = list(held.values())
        self._column = {one: column for column, one in enumerate(held)}
        rounding = self._rounding()
        names = tuple(labels.values())
        layout = Layout(name, names, self._columns(lines.lines), self._columns(lines.owners), rounding)
        shares = [shards.share_of(parameter) for parameter in self.parameters]
        sharded = np.array([place for place, share in enumerate(shares) if share is not None], dtype=np.intp)
        self.row = RowForm(layout, sharded, np.array([share for share in shares if share is not None]))
        self.given = _Known(self._column)
        self._common: dict[int, tuple[OptimizerParameters, tuple[int, ...]]] = {}

    @property
    def layout(self) -> Layout:
        """What the columns are called."""
        return self.row.layout

    @property
    def is_retyped(self) -> bool:
        """Whether some are of another type than they were: ``.to()`` converts a parameter in place."""
        return not np.array_equal(self._rounding(), self.layout.rounding)

    def _rounding(self) -> FloatArray:
        return np.array([_epsilon(parameter) for parameter in self.parameters])

    def __len__(self) -> int:
        return len(self.parameters)

    def holds(self, parameter: Tensor) -> bool:
        """Whether it is one of these."""
        return id(parameter) in self._column

    def common_with(self, other: OptimizerParameters) -> tuple[int, ...]:
        """The columns whose parameters another optimizer holds too."""
        known = self._common.get(id(other))
        if known is None or known[0] is not other:
            columns = tuple(c for one, c in self._column.items() if one in other._column)
            self._common = {**dict(list(self._common.items())[-self.MOST_OTHERS :]), id(other): (other, columns)}
            return columns
        return known[1]

    def columns_in(self, other: OptimizerParameters) -> tuple[Columns, BoolArray]:
        """The column that each of these had in an earlier list, and whether it had one."""
        old = [other._column.get(id(parameter)) for parameter in self.parameters]
        known = np.array([column is not None for column in old], dtype=bool)
        return np.array([column or 0 for column in old], dtype=np.intp), known

    def _columns(self, groups: Mapping[str, Sequence[Tensor]]) -> dict[str, Columns]:
        found = {}
        for name, parameters in groups.items():
            columns = dict.fromkeys(self._column[id(p)] for p in parameters if id(p) in self._column)
            if columns:
                found[name] = np.array(list(columns), dtype=np.intp)
        return found


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """What the optimizer holds, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def addresses(parameters: Iterable[Tensor]) -> bytes:
    """Which objects these are, as int64: cheap to compare, and to be found by."""
    return array("q", map(id, parameters)).tobytes()


def _epsilon(parameter: Tensor) -> float:
    """The relative distance between neighbouring numbers of its type."""
    of_floats = parameter.is_floating_point() or parameter.is_complex()
    return float(torch.finfo(parameter.dtype).eps) if of_floats else 0.0
