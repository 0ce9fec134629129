"""What the columns of a block are, and the groups of them that are reported and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradwatch.blocks.arrays import BoolArray, Columns, FloatArray

__all__ = ["Groups", "Layout"]


class Groups:
    """Named groups of columns that may overlap: the lines of a report, or the modules that own parameters.

    Args:
        columns: name -> indices into a row; none of them empty.
    """

    def __init__(self, columns: Mapping[str, Columns]) -> None:
        self.columns = dict(columns)
        self.names = tuple(columns)
        self.places = {name: place for place, name in enumerate(self.names)}
        # All groups' columns one after another, and where each begins: for one reduction over all of them.
        self.index = np.concatenate([*columns.values(), np.zeros(0, dtype=np.intp)])
        self.starts = np.cumsum([0, *(len(some) for some in columns.values())])[:-1]

    def sums(self, values: FloatArray) -> FloatArray:
        """``[steps, columns]`` -> the sums of each group, ``[steps, groups]``."""
        if not self.names:
            return np.zeros((len(values), 0))
        return np.add.reduceat(values[:, self.index], self.starts, axis=1)

    def any(self, flags: BoolArray) -> BoolArray:
        """``[steps, columns]`` -> whether any column of each group is flagged, ``[steps, groups]``."""
        if not self.names:
            return np.zeros((len(flags), 0), dtype=bool)
        return np.logical_or.reduceat(flags[:, self.index], self.starts, axis=1)


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
        self.rounding = rounding

    @property
    def finest(self) -> Groups:
        """What verdicts on modules are about: the modules that own parameters; the lines where none are known."""
        return self.owners if self.owners.names else self.lines

    @property
    def nbytes(self) -> int:
        """About what it takes up: names may be others' too."""
        names = (*self.names, *self.lines.names, *self.owners.names)
        columns = len(self.lines.index) + len(self.owners.index) + len(self.names)
        return sum(200 + len(name) for name in names) + 24 * columns

    def named(self, flags: BoolArray) -> tuple[str, ...]:
        """The names of the columns that are flagged."""
        return tuple(self.names[place] for place in np.flatnonzero(flags).tolist()) if flags.any() else ()
