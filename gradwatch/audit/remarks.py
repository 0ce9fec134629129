"""What a reader of a log should know and what contradicts nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradwatch.audit.breach import times
from gradwatch.audit.curves import TORCH, Curve, Log, Norms, joined

__all__ = ["remarks"]


def remarks(log: Log) -> list[str]:
    """A sentence for each: of the log itself, of what was not compared, of what is always 0, then the others."""
    everything = [norms for top in log.norms for norms in _below(top)]
    curves = [(curve, norms) for norms in everything for curve in norms.sides.values()]
    found = [*log.remarks]
    for norms in everything:
        found += [] if log.own else _not_compared(norms)
    found += [said for curve, norms in curves for said in _constant(curve, norms)]
    if not any(norms.parts or norms.ratio or norms.limit or norms.clipping or norms.sums for norms in everything):
        found.append("No norm has another here that it could contradict: that none is negative is all that holds.")
    for norms in everything:
        found += [said for side, total in norms.sums.items() for said in _summed(total, norms.sides.get(side))]
    for norms in log.norms:
        found += [] if log.own else _no_limit(norms)
        found += [said for curve in list(norms.sides.values())[:1] for said in _gaps(curve)]
    return [*found, *(said for curve, _ in curves if not log.own for said in _again(curve))]


def _below(norms: Norms) -> Iterator[Norms]:
    """Norms, and those of all parts."""
    yield norms
    for parts in norms.parts:
        for part in parts.members:
            yield from _below(part)


def _not_compared(norms: Norms) -> Iterator[str]:
    """Of a pair that no clip is known to lie between, that a law was not held against it."""
    before, after = norms.sides.get("before"), norms.sides.get("after")
    if before is None or after is None or norms.clipping is not None:
        return
    steps, (high, low) = joined(before, after)
    said = f"{after.name} is not held against {before.name}: no name says that a clip lies between"
    above = low > high * (1.0 + TORCH.relative)
    if above.any():
        with np.errstate(all="ignore"):
            factors = np.where(above, low / high, 0.0)
        worst = int(np.argmax(factors))
        said += (
            f"; after is above before in {int(above.sum())} of {len(steps)} steps, {low[worst]:.4g} against "
            f"{high[worst]:.4g} at step {steps[worst]}, which no clip does"
        )
    yield f"{said}."


def _constant(curve: Curve, norms: Norms) -> Iterator[str]:
    steps, (values,) = joined(curve)
    if len(steps) < 2 or not np.all(values == values[0]):
        return
    if values[0] == 0.0:
        yield f"{curve.name} is exactly 0 at all {len(steps)} steps: no gradient reaches it, or none is there."
    # Clipping brings a norm to its limit, again and again.
    elif curve is not norms.sides.get("after"):
        yield f"{curve.name} is exactly {values[0]:.4g} at all {len(steps)} steps."


def _again(curve: Curve) -> Iterator[str]:
    doubled = len(curve.steps) - len(np.unique(curve.steps))
    if doubled:
        yield f"{curve.name} has {doubled} numbers more than steps: the last of each step is looked at."


def _summed(total: Curve, norm: Curve | None) -> Iterator[str]:
    """How far it is above the norm of the same gradients: for n tensors at most the root of n times."""
    said = f"{total.name} is by its name a sum of norms, not the L2 norm that a limit is meant for"
    if norm is not None:
        steps, (sums, norms) = joined(total, norm)
        there = (norms > 0.0) & np.isfinite(sums) & np.isfinite(norms)
        factors = sums[there] / norms[there]
        if len(factors):
            worst = int(np.argmax(factors))
            said += f": up to {times(factors[worst])} {norm.name}, at step {steps[there][worst]}"
            said += f", which takes {math.ceil(factors[worst] ** 2):,} tensors or more"
    yield f"{said}."


def _gaps(curve: Curve) -> Iterator[str]:
    """Steps that are missing from a sequence that is even otherwise."""
    steps = np.unique(curve.steps)
    ahead = np.diff(steps)
    if len(ahead) < 2 or np.all(ahead == ahead.min()):
        return
    usual = int(np.median(ahead))
    wide = np.flatnonzero(ahead > usual)
    if len(wide) and np.all(ahead % usual == 0):
        missing = int((ahead[wide] // usual - 1).sum())
        yield f"{curve.name} is missing at {missing} steps, every {usual} otherwise: first after {steps[wide[0]]}."


def _no_limit(norms: Norms) -> Iterator[str]:
    after = norms.sides.get("after")
    clipped = norms.clipping is not None and bool(norms.clipping.values.any())
    if after is not None and clipped and norms.limit is None:
        highest = np.nanmax(after.values, initial=0.0)
        yield f"No limit of {after.name} is in the log: compare its highest, {highest:.8g}, with yours."
