"""What a single clip call was given, where the record shows by itself that it was the wrong thing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradwatch.judge.at_hand import members
from gradwatch.judge.rule import Finding
from gradwatch.judge.wording import listed
from gradwatch.printing import called
from gradwatch.records import ClipCall, StepRecord

__all__ = [
    "MAY_UNDERFLOW",
    "TORCH_ERROR",
    "comparable",
    "given_nothing",
    "is_close",
    "negative",
    "number",
    "repeated",
    "still_scaled",
    "underflowed",
    "wrong_total",
]

# Torch sums squares in the gradient's own type and can return a norm that is off by percents; what follows from
# that is no fault of the loop's.
TORCH_ERROR = 1.05

# The squares of gradients with a norm below this may underflow in float32.
MAY_UNDERFLOW = 1e-15

# How close a total norm is to what it was made of by mistake: float32 sums of some thousand norms are off by less.
_JUST_THAT = 1e-3


def wrong_total(record: StepRecord) -> Iterator[Finding]:
    """A total norm that is not that of these gradients: a part's, a mean, the largest, a sum, or a root left out.

    Told only where it is just that: another p-norm is a total norm too. Inf is the square of anything too large.
    """
    for call in record.clips:
        given, true = call.norm_given, call.scope_before
        if given is None or not math.isfinite(given) or not true or is_close(given, true):
            continue
        made_of = next((how for how, norm in _slips(record, true) if _is_just(given, norm)), None)
        if made_of is not None:
            was_scaled = given > call.limit or number(call.scope_after) > call.limit
            message = (
                f"{call.function} was given a total norm of {given:.6g}, which is {made_of}; the norm of these "
                f"gradients is {true:.6g}. Of it {number(call.scope_after):.6g} was consumed, where the limit is "
                f"{call.limit:g}"
            )
            remedy = "Pass it what torch.nn.utils.get_total_norm gives of all these gradients."
            yield Finding(None, given, true, message, None if was_scaled else "warning", remedy=remedy)


def _slips(record: StepRecord, true: float) -> Iterator[tuple[str, float]]:
    """What is taken for the norm of several gradients by mistake."""
    yield "its square: a root was left out", true * true
    for names in (record.parameters, *(members(record, module) for module in record.modules)):
        norms = [record.parameters[name].norm_before for name in names]
        norms = [norm for norm in norms if not math.isnan(norm)]
        if norms and _is_just(math.hypot(*norms), true):
            yield "the mean of their norms", math.fsum(norms) / len(norms)
            yield "the largest of their norms", max(norms)
            yield "the sum of their norms", math.fsum(norms)
            yield "the mean of their squares, and its root", true / math.sqrt(len(norms))
    for module, pair in record.modules.items():
        yield f"the norm of {called(module)} alone", pair.norm_before


def _is_just(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_JUST_THAT)


def negative(record: StepRecord) -> Iterator[Finding]:
    """A limit below 0: torch multiplies by it, and the optimizer climbs."""
    for call in record.clips:
        if call.limit < 0.0:
            message = f"{call.function} was called with a limit of {call.limit:g}: it turned every gradient around"
            yield Finding(None, record.norm_after, call.limit, message, remedy="Give clipping a limit above 0.")


def given_nothing(record: StepRecord) -> Iterator[Finding]:
    """Every call was given nothing of what this optimizer holds, and found nothing in what it was given."""
    if record.clips and all(call.scope_before is None and call.norm_returned == 0.0 for call in record.clips):
        call = record.clips[0]
        message = (
            f"{call.function} was given none of the optimizer's gradients and found a norm of 0: it was handed "
            f"other parameters, or a generator that was used up; a norm of {record.norm_after:.3g} was consumed "
            "unclipped"
        )
        remedy = "Pass it the parameters that the optimizer holds, from a list or from a new call of parameters()."
        yield Finding(None, record.norm_after, call.limit, message, remedy=remedy)


def repeated(record: StepRecord) -> Iterator[Finding]:
    """A tied parameter that was passed twice: torch counts it twice, and scales it twice."""
    for call in record.clips:
        true, torchs = call.scope_before, call.norm_returned
        if not call.repeated or true is None or torchs is None:
            continue
        was_scaled = torchs > call.limit
        message = (
            f"{listed(call.repeated)} was given to {call.function} more than once: torch computed a norm of "
            f"{torchs:.6g} where the true one is {true:.6g}"
            + (", and scaled that gradient as often" if was_scaled else "")
        )
        remedy = "Pass it each parameter once, as the parameters() of the whole model gives them."
        yield Finding(None, torchs, call.limit, message, None if was_scaled else "warning", remedy=remedy)


def still_scaled(record: StepRecord) -> Iterator[Finding]:
    """A call that came before a GradScaler had divided the gradients: it held the scaled norm to the limit."""
    scale = record.loss_scale
    if scale is None or not scale > TORCH_ERROR:
        return
    for call in record.clips:
        if comparable(call) and is_close(number(call.norm_returned), number(call.scope_before) * scale):
            was_scaled = number(call.norm_returned) > call.limit
            message = (
                f"{call.function} ran on gradients still multiplied by the loss scale: it saw a norm of "
                f"{call.norm_returned:.3g} where the true one is {call.scope_before:.3g}"
            )
            remedy = "Call scaler.unscale_(optimizer) before clipping."
            value = number(call.norm_returned)
            yield Finding(None, value, call.limit, message, None if was_scaled else "warning", remedy=remedy)


def underflowed(record: StepRecord) -> Iterator[Finding]:
    """Gradients so small that torch's own norm of them is 0."""
    for call in record.clips:
        true = call.scope_before
        if call.norm_returned == 0.0 and true is not None and 0.0 < true < MAY_UNDERFLOW:
            message = (
                f"torch computed a norm of 0 for gradients whose true norm is {true:.6g}: their squares "
                "underflow, so that the limit was held against nothing"
            )
            remedy = "Scale the loss up, or clip by gradwatch.global_norm, which does not underflow."
            yield Finding(None, true, call.limit, message, "warning", remedy=remedy)


def comparable(call: ClipCall) -> bool:
    """Whether torch's norm and the true one are of the same gradients, and of the same kind."""
    known = call.norm_returned is not None and call.scope_before is not None
    return known and call.norm_type == 2 and not call.repeated


def is_close(one: float, other: float) -> bool:
    """Whether the rounding of torch's sums explains the difference."""
    return other > 0.0 and 1.0 / TORCH_ERROR < one / other < TORCH_ERROR


def number(norm: float | None) -> float:
    """NaN where there is none."""
    return math.nan if norm is None else norm
