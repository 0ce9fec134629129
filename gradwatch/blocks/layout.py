"""What the columns of a block are, and the groups of them that are reported and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradwatch.blocks.arrays import BoolArray, Columns, FloatArray

__all__ = ["Groups", "Layout"]


class Reduction:
    """Sums over several groups of columns, which may overlap, in one call.

    Args:
        groups: indices into a row; none of them empty.
    """

    def __init__(self, groups: Sequence[Columns]) -> None:
        self.groups = groups
        # All groups' columns one after another, and where each begins.
        self.index = np.concatenate([*groups, np.zeros(0, dtype=np.intp)])
        self._starts = np.cumsum([0, *map(len, groups)])[:-1]

    def squares(self, values: FloatArray) -> FloatArray:
        """``[steps, columns]`` -> the sum of the squares in each group, ``[steps, groups]``."""
        if not len(self.index):
            return np.zeros((len(values), len(self.groups)))
        squares = values.take(self.index, axis=1)
        squares *= squares
        return np.add.reduceat(squares, self._starts, axis=1)

    def any(self, flags: BoolArray) -> BoolArray:
        """``[steps, columns]`` -> whether any column of each group is flagged, ``[steps, groups]``."""
        if not len(self.index):
            return np.zeros((len(flags), len(self.groups)), dtype=bool)
        return np.logical_or.reduceat(flags[:, self.index], self._starts, axis=1)


class Groups(Reduction):
    """Named groups of columns: the lines of a report, or the modules that own parameters.

    Args:
        columns: name -> indices into a row; none of them empty.
    """

    def __init__(self, columns: Mapping[str, Columns]) -> None:
        super().__init__(tuple(columns.values()))
        self.columns = dict(columns)
        self.names = tuple(columns)
        self.places = {name: place for place, name in enumerate(self.names)}


class Layout:
    """What the columns of a row are: the parameters of one optimizer, and the groups they are reported in.

    Args:
        optimizer: name of the optimizer.
        names: name of each parameter, ``[columns]``.
        lines: the lines of the report: name -> columns.
        owners: the modules that own parameters themselves: path -> columns.
        rounding: machine epsilon of each parameter's type, ``[columns]``.
    """

    def __init__(
        self,
        optimizer: str,
        names: Sequence[str],
        lines: Mapping[str, Columns],
        owners: Mapping[str, Columns],
        rounding: FloatArray,
    ) -> None:
        self.optimizer = optimizer
        self.names = tuple(names)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.lines = Groups(lines)
        self.owners = Groups(owners)
        # The whole, then each line, then each owner.
        self.all = Reduction((np.arange(len(self.names)), *self.lines.groups, *self.owners.groups))
        self.rounding = rounding

    @property
    def finest(self) -> Groups:
        """What verdicts on modules are about: the modules that own parameters; the lines where none are known."""
        return self.owners if self.owners.names else self.lines

    @property
    def nbytes(self) -> int:
        """About what it takes up: names may be others' too."""
        names = (*self.names, *self.lines.names, *self.owners.names)
        columns = sum(len(groups.index) for groups in (self.lines, self.owners, self.all))
        return sum(200 + len(name) for name in names) + 24 * columns

    def named(self, flags: BoolArray) -> tuple[str, ...]:
        """The names of the columns that are flagged."""
        return tuple(map(self.names.__getitem__, np.flatnonzero(flags).tolist())) if flags.any() else ()
