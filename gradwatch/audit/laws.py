"""What holds for the norms of gradients whatever was trained, and where a log says otherwise.

An L2 norm is not negative. Clipping scales gradients down, to a norm of at most its limit. The norm of a part is
at most that of the whole, and the square of the whole is the sum of the squares of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gradwatch.audit.breach import Breach, Truths, told
from gradwatch.audit.curves import Curve, Floats, Log, Norms, Parts, Precision, joined

__all__ = ["breaches"]

# clip_grad_norm_ scales by limit / (norm + 1e-6), which is what some log as their ratio.
_EPSILON = 1e-6

# What a clipped norm may be above its limit: the scaling itself is rounded, once for each tensor.
_SCALING = 1e-5


def breaches(log: Log) -> list[Breach]:
    """All of a log, the worst first."""
    found = [breach for norms in log.norms for breach in _of(norms, log)]
    return sorted(found, key=lambda breach: -breach.factor)


def _of(norms: Norms, log: Log) -> Iterator[Breach]:
    curves = [*norms.sides.values(), *norms.sums.values()]
    for curve in curves:
        yield from _not_negative(curve)
    # gradwatch writes all of one step at once.
    for curve in curves[:1] if log.own else curves:
        yield from _in_order(curve, log.own)
    yield from _of_clipping(norms, log.precision)
    for side, summed in norms.sums.items():
        if side in norms.sides:
            yield from _no_sum_below(summed, norms.sides[side], log.precision)
    for parts in norms.parts:
        yield from _of_parts(norms, parts, log.precision)
        for part in parts.members:
            yield from _of(part, log)


def _of_clipping(norms: Norms, precision: Precision) -> Iterator[Breach]:
    before, after = norms.sides.get("before"), norms.sides.get("after")
    if after is not None:
        yield from _limited(norms, after, precision)
        if before is not None:
            yield from _lowered(norms, before, after, precision)
            yield from _ratio(norms, before, after, precision)


def _of_parts(norms: Norms, parts: Parts, precision: Precision) -> Iterator[Breach]:
    for side, whole in norms.sides.items():
        held = [part.sides[side] for part in parts.members if side in part.sides]
        for part in held:
            yield from _no_part_above(whole, part, precision)
        yield from _squares_add(whole, held, parts.disjoint, precision)
        if side and not held:
            # Whenever they were measured: a whole that is their plain sum is no L2 norm.
            untimed = [part.sides[""] for part in parts.members if "" in part.sides]
            yield from _squares_add(whole, untimed, False, precision)


def _not_negative(curve: Curve) -> Iterator[Breach]:
    steps, (values,) = joined(curve)
    yield from told(
        "not-negative",
        (curve.name,),
        steps,
        values < 0.0,
        lambda at: f"{curve.name} is negative, which no norm is: {at.at}",
        values,
    )


def _in_order(curve: Curve, own: bool) -> Iterator[Breach]:
    """A file goes on: where an earlier step follows, or the same one with another number, it holds two runs."""
    one_file = np.ones(len(curve.steps), dtype=bool)
    one_file[[0, *curve.files]] = False
    ahead = np.diff(curve.steps, prepend=curve.steps[:1])
    yield from told(
        "in-order",
        (curve.name,),
        curve.steps,
        one_file & (ahead < 0),
        lambda at: f"{curve.name} goes back to step {at.step} within one file, as if two runs were in it",
        curve.values,
    )
    if own:
        # Others may write several numbers for one step, as of each batch of an epoch.
        same = curve.values[1:] == curve.values[:-1]
        differs = ~np.concatenate(([True], same | np.isnan(curve.values[1:])))
        yield from told(
            "in-order",
            (curve.name,),
            curve.steps,
            one_file & (ahead == 0) & differs,
            lambda at: f"{curve.name} has two numbers for step {at.step}",
            curve.values,
        )


def _lowered(norms: Norms, before: Curve, after: Curve, precision: Precision) -> Iterator[Breach]:
    if norms.clipping is None:
        return
    steps, (high, low, clips) = joined(before, after, norms.clipping)
    yield from told(
        "clip-lowers",
        (after.name, before.name),
        steps,
        (clips > 0.0) & _above(low, high, 2 * precision.relative, precision),
        lambda at: f"{after.name} is above {before.name}, {at.at}: clipping can only lower a norm",
        low,
        high,
    )


def _limited(norms: Norms, after: Curve, precision: Precision) -> Iterator[Breach]:
    if norms.limit is None:
        return
    steps, (values, limits) = joined(after, norms.limit)
    yield from told(
        "within-limit",
        (after.name, norms.limit.name),
        steps,
        _above(values, limits, _SCALING + precision.relative, precision),
        lambda at: f"{after.name} is above the limit that it was clipped to, {at.at}",
        values,
        limits,
    )


def _ratio(norms: Norms, before: Curve, after: Curve, precision: Precision) -> Iterator[Breach]:
    ratio = norms.ratio
    if ratio is None:
        return
    steps, (high, low, ratios) = joined(before, after, ratio)
    there = np.isfinite(high) & np.isfinite(low) & np.isfinite(ratios) & (high > 0.0)
    steps, high, low, ratios = steps[there], high[there], low[there], ratios[there]
    slack = 3 * precision.relative
    with np.errstate(over="ignore"):
        most, least = low / high, low / (high + _EPSILON)
    yield from told(
        "ratio",
        (ratio.name, after.name, before.name),
        steps,
        _above(ratios, most, slack, precision) | _above(least, ratios, slack, precision),
        lambda at: f"{ratio.name} is not {after.name} over {before.name}, {at.at}",
        ratios,
        most,
    )


def _no_part_above(whole: Curve, part: Curve, precision: Precision) -> Iterator[Breach]:
    steps, (high, low) = joined(whole, part)
    yield from told(
        "part-below-whole",
        (part.name, whole.name),
        steps,
        _above(low, high, 2 * precision.relative, precision),
        lambda at: (
            f"{part.name} is above {whole.name}, {at.at}: no L2 norm of a part "
            "is above that of the whole, but a sum of the norms of its tensors can be"
        ),
        low,
        high,
    )


def _no_sum_below(total: Curve, norm: Curve, precision: Precision) -> Iterator[Breach]:
    steps, (sums, norms) = joined(total, norm)
    yield from told(
        "sum-above-norm",
        (total.name, norm.name),
        steps,
        _above(norms, sums, 2 * precision.relative, precision),
        lambda at: f"{total.name}, a sum of norms, is below {norm.name}, {at.at}: it is at least the L2 norm",
        sums,
        norms,
    )


def _squares_add(whole: Curve, parts: Sequence[Curve], disjoint: bool, precision: Precision) -> Iterator[Breach]:
    if len(parts) < 2:
        return
    steps, (total, *each) = joined(whole, *parts)
    held = np.nan_to_num(np.stack(each), nan=0.0, posinf=np.inf)
    norm = _norm(held)
    with np.errstate(over="ignore"):
        sums = held.sum(axis=0)
        difference = np.abs(np.where(np.isfinite(total), total, 0.0) - sums)
    # Each term is written, and each addition rounds, in float32 at worst.
    exactly = (len(parts) + 2) * max(precision.written, 2.0**-23)
    can_tell = np.isfinite(total) & (sums > norm * (1.0 + 4 * precision.relative + 2 * exactly))
    summed = can_tell & (difference <= exactly * sums)
    names = (whole.name, *(part.name for part in parts))
    yield from told(
        "root-of-squares",
        names,
        steps,
        summed,
        lambda at: (
            f"{whole.name} is the sum of its parts' norms, not their L2 norm, the root of the sum of their squares"
            f": too high by {at.factor} at step {at.step}"
        ),
        total,
        norm,
        of=int(can_tell.sum()),
    )
    # A part that is above the whole by itself is told already.
    slack = 2 * precision.relative
    told_already = summed | _above(held.max(axis=0, initial=0.0), total, slack, precision)
    yield from told(
        "root-of-squares",
        names,
        steps,
        _above(norm, total, slack, precision) & ~told_already & disjoint,
        lambda at: (
            f"{whole.name} is below the L2 norm of its parts together, {at.at}: it "
            "does not hold all of them, or they share tensors"
        ),
        total,
        norm,
    )


def _norm(parts: Floats) -> Floats:
    """``[parts, steps]`` -> ``[steps]``, without overflow."""
    largest = parts.max(axis=0)
    scale = np.where((largest > 0.0) & np.isfinite(largest), largest, 1.0)
    root: Floats = scale * np.sqrt(np.square(parts / scale).sum(axis=0))
    return root


def _above(high: Floats, low: Floats, relative: float, precision: Precision) -> Truths:
    """Where one number is above the other by more than both can be off; False where either is NaN."""
    with np.errstate(over="ignore"):
        above: Truths = high > low * (1.0 + relative) + 2 * precision.absolute
    return above
