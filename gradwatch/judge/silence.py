"""Which modules have no gradient in a step, or in each step of a block, and which have next to none."""

from __future__ import annotations

import numpy as np

from gradwatch.blocks import AFTER, Block, BoolArray
from gradwatch.judge.rounding import Rounding
from gradwatch.judge.scale import LIMIT, faint
from gradwatch.records import StepRecord

__all__ = ["Modules", "flags", "modules_of", "named", "sorted_out"]

Modules = tuple["str | None", ...]


def sorted_out(record: StepRecord, rounding: Rounding) -> tuple[Modules, Modules, Modules]:
    """The modules; those of them without a gradient; and these with those that are next to nothing.

    None is the whole where there are no modules. Of the first steps it is noted which may be but rounding.
    """
    if not (record.owners or record.modules):
        none_at_all = bool(record.missing) and len(record.missing) == len(record.parameters)
        silent: Modules = (None,) if none_at_all or record.norm_after == 0.0 else ()
        return (None,), silent, silent
    modules = record.owners or record.modules
    missing = record.missing_owners if record.owners else record.missing_modules
    norms, wholes = np.array([[norms[1] for norms in modules.values()]]), np.array([record.norm_after])
    zeros = (norms[0] == 0.0) | np.array([name in missing for name in modules], dtype=bool)
    names = tuple(modules)
    if not rounding.is_settled:
        rounding.take(names, norms[0], record.norm_after)
    if rounding.shown:
        zeros |= rounding.silent(names, norms, wholes)[0]
    lows = zeros | faint(norms, wholes)[0]
    return names, named(names, zeros), named(names, lows)


def modules_of(block: Block) -> Modules:
    """The modules of a block."""
    return block.layout.finest.names or (None,)


def flags(block: Block, rounding: Rounding) -> tuple[BoolArray, BoolArray] | None:
    """The other two of a block, ``[steps, modules]``; None where nobody is among them, nearly always."""
    # None is smaller than what it is made of.
    if block.smallest > LIMIT and not rounding.shown:
        return None
    modules, zeros = block.layout.finest.names, block.silent
    if not modules:
        zeros = lows = block.silent_whole[:, None]
    else:
        norms = block.finest_norms(AFTER)
        if rounding.shown:
            zeros = zeros | rounding.silent(modules, norms, block.norms(AFTER))
        lows = zeros | faint(norms, block.norms(AFTER)) if (norms < LIMIT).any() else zeros
    return (zeros, lows) if lows.any() else None


def named(modules: Modules, flags: BoolArray) -> Modules:
    """Those that are flagged, ``[modules]``."""
    return tuple(map(modules.__getitem__, np.flatnonzero(flags).tolist()))
