"""What to do about each kind of cause: one sentence, for somebody who is tired."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gradwatch.records import Cause

__all__ = ["AS_WIDE_AS_FLOAT32", "REGISTER", "REMEDIES", "cause"]

REMEDIES: Mapping[str, str] = {
    "frozen": "Set requires_grad_(True) on it, or leave it out of the optimizer if it is meant to stay as it is.",
    "not-in-optimizer": "Hand it to an optimizer: build the optimizer after the module, or add a parameter group.",
    "no-backward": "Call backward() on a loss that depends on it before the optimizer steps.",
    "unused": "Call it in forward and let its output reach the loss, or take it out of the optimizer.",
    "detached": "Let the loss use its output, with no detach(), .data, .item() or NumPy step between them.",
    "no-grad": "Call it outside torch.no_grad() and torch.inference_mode().",
    "zeroed": "Move zero_grad() before backward(), or out from between backward() and step().",
    "clipped-to-zero": "Check that the limit is not 0, and look for a gradient that makes the norm infinite.",
    "clip-overflow": "Clip by gradwatch.global_norm, or scale the loss down: torch's own norm overflowed.",
    "stale": "Call zero_grad() after each step, and backward() before the next one.",
    "leaked": (
        "Call zero_grad() on this optimizer once a step, before its own first backward(); or, if another loss "
        "left it, freeze it there."
    ),
    "underflow": "Use a loss scaler, bfloat16 or float32 here, or scale the loss up: the gradient is too small.",
    "zero-loss": "Look at the loss: its weight or mask is zero or nearly so, or it is satisfied already.",
    "zero-weight": "Start this weight from small random values, or from zero only where others can move it first.",
    "zero-input": "Look at what feeds this layer: its input is all zero, so its weight cannot learn.",
    "zero-factor": "Look at what multiplies it: it is exactly 0, as a difference of two equals or a switch is.",
    "constant": "Take this operation out, or give it more than one element: what it makes depends on nothing.",
    "dead-relu": "Lower the learning rate, raise the bias, or use LeakyReLU: no unit is active for any sample.",
    "saturated-tanh": "Make what enters it smaller: normalise it, start the last layer small, or lower the rate.",
    "saturated-sigmoid": "Make what enters it smaller: normalise it, start the weights small, or train on logits.",
    "clamped": "Widen the limits, or use a smooth function instead: beyond the limits there is no slope.",
    "masked": "Look at the mask: it leaves nothing of what this module makes.",
    "shortcut": "Cut the path around the silent module: detach what reaches the loss past it.",
    "nonfinite-loss": "Look at this step's data, targets and weights: the loss was not finite before backward.",
    "nonfinite-op": "Keep this operation's input away from the value that broke it: clamp it or add an epsilon.",
    "nonfinite-weights": "Look at the update: lower the learning rate, clip the gradient, or raise eps.",
    "unknown": "Nothing is proven: look at what goes into this place and what comes out, forward and backward.",
}

_GROWN = "Lower the learning rate, clip the gradient, or normalise what comes in: it has grown beyond its type."

# For parameters that no module holds.
REGISTER = (
    "Register it in __init__, as a module, in nn.ModuleList or as nn.Parameter, and build the optimizer then."
)

# Types of the range of float32, about 3e38, or more.
AS_WIDE_AS_FLOAT32 = frozenset(["bfloat16", "float32", "float64"])


def cause(kind: str, where: str, fitting: str | None = None, /, **evidence: float | int | str) -> Cause:
    """A cause with a remedy: one that fits the operation, else the numbers, else its kind.

    Raises:
        KeyError: there is no such kind.
    """
    return Cause(kind, where, evidence, fitting or _by_numbers(kind, evidence) or REMEDIES[kind])


def _by_numbers(kind: str, evidence: Mapping[str, float | int | str]) -> str | None:
    """What to do about just these numbers: a type that they do not fit, a limit that leaves nothing of them."""
    dtype, limit, norm = (evidence.get(name) for name in ("dtype", "limit", "norm_returned"))
    wide = dtype in AS_WIDE_AS_FLOAT32
    if kind == "clipped-to-zero" and isinstance(limit, float):
        if isinstance(norm, float) and not math.isfinite(norm):
            return f"Look for the gradient that is not finite: by a norm of {norm} clipping erases all the others."
        return f"Raise the limit of the clip call: {limit:g} leaves nothing of the gradient."
    if kind == "leaked" and evidence.get("backward_passes") == 1:
        return "Call zero_grad() on this optimizer once a step, before backward()."
    if kind == "nonfinite-op" and "largest_of_type" in evidence:
        return (
            _GROWN if wide else f"Keep this in bfloat16 or float32, or make it smaller: {dtype} ends before that."
        )
    if kind == "nonfinite-weights" and dtype == "float16":
        return "Keep the weights in float32, or raise eps: 1e-8 is 0 in float16."
    if kind == "underflow" and dtype in ("float32", "float64"):
        return f"Scale the loss up, or multiply fewer small factors: the gradient is too small for {dtype}."
    return None
