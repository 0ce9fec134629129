"""Layers with a weight that is no factor of a plain product: normalisations, PReLU, normalised weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.factors import name_factor
from gradwatch.diagnose.numbers import extent, share
from gradwatch.diagnose.site import Finding, Site

__all__ = ["READERS"]


def affine_norm(site: Site) -> Finding | None:
    """A normalisation with a weight: the weight is zero, or what it normalises is constant."""
    weight = site.tensor("weight")
    if site.index == 0 and weight is not None and not bool((weight != 0).any()):
        return name_factor(site, 1, weight)
    before = site.tensor("input")
    if before is None or site.index > 1:
        return None
    low, high, _ = extent(before)
    if site.index == 1 and low == high:
        return Finding(
            "zero-input", {"input_min": low, "input_max": high, "reason": "a constant input is normalised to 0"}
        )
    if _normalised_alone(site, before):
        return Finding(
            "unknown", {"reason": "one value is normalised by itself", "ruled_out": "zero-weight, underflow"}
        )
    return None


def prelu(site: Site) -> Finding | None:
    """A PReLU whose slope is zero and that sees only negative inputs."""
    before, weight = site.tensor("self"), site.tensor("weight")
    if before is None or weight is None or site.index != 0:
        return None
    live = site.gradient != 0
    if bool((live & ((before > 0) | (weight != 0))).any()):
        return None
    low, high, _ = extent(before)
    return Finding(
        "dead-relu", {"share": share(before <= 0), "input_min": low, "input_max": high, "largest_slope": 0.0}
    )


def weight_norm(site: Site) -> Finding | None:
    """A weight that is normalised to a length of zero: its direction cannot be learned."""
    length = site.tensor("g")
    if site.index != 0 or length is None or bool((length != 0).any()):
        return None
    return Finding("zero-weight", {"share_of_zeros": 1.0, "elements": length.numel()})


def _normalised_alone(site: Site, before: Tensor) -> bool:
    shape = site.saved("normalized_shape")
    return shape is not None and torch.Size(shape).numel() == 1


READERS: dict[str, Callable[[Site], Finding | None]] = {
    "NativeLayerNorm": affine_norm,
    "NativeBatchNorm": affine_norm,
    "CudnnBatchNorm": affine_norm,
    "NativeGroupNorm": affine_norm,
    "FusedRmsNorm": affine_norm,
    "PreluKernel": prelu,
    "WeightNormInterface": weight_norm,
}
