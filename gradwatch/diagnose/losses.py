"""Loss functions: satisfied exactly, weighed by zero, or without anything to learn from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.numbers import largest, same_everywhere, share
from gradwatch.diagnose.site import Finding, Site
from gradwatch.diagnose.slopes import underflow_of

__all__ = ["READERS"]

Reader = Callable[[Site], Finding | None]


def distance(site: Site) -> Finding | None:
    """MSE and its kin: prediction and target are equal."""
    prediction, target = site.tensor("self"), site.tensor("target")
    if prediction is None or target is None:
        return None
    if prediction.numel() == 0:
        return Finding("zero-loss", {"elements": 0})
    difference = prediction.double() - target.double()
    live = _live(site, difference)
    if same_everywhere(difference == 0, live):
        return Finding("zero-loss", {"largest_difference": largest(difference), "elements": difference.numel()})
    return underflow_of(site, difference * 2 / _divisor(site, difference))


def likelihood(site: Site) -> Finding | None:
    """Negative log-likelihood: every target is left out, or weighs nothing."""
    target, ignored = site.tensor("target"), site.saved("ignore_index")
    if target is None:
        return None
    left_out = target == ignored
    weight, total = site.tensor("weight"), site.tensor("total_weight")
    if bool(left_out.all()) or (total is not None and largest(total) == 0.0):
        return Finding("zero-loss", {"share_ignored": share(left_out), "targets": target.numel()})
    if weight is not None and largest(weight) == 0.0:
        return Finding("zero-loss", {"largest_weight": 0.0, "targets": target.numel()})
    return None


def cross_entropy(site: Site) -> Finding | None:
    """Binary cross-entropy: weighed by zero, or its probability equals the target."""
    prediction, target, weight = site.tensor("self"), site.tensor("target"), site.tensor("weight")
    if prediction is None or target is None:
        return None
    if weight is not None and largest(weight) == 0.0:
        return Finding("zero-loss", {"largest_weight": 0.0, "elements": prediction.numel()})
    on_logits = "Logits" in site.node.name()
    probability = torch.sigmoid(prediction) if on_logits else prediction
    if same_everywhere(probability == target, _live(site, prediction)):
        return Finding("zero-loss", {"largest_difference": 0.0, "elements": prediction.numel()})
    return None


def margin(site: Site) -> Finding | None:
    """A margin loss: every margin is kept, since its gradient is zero for no other reason."""
    prediction = site.tensor("self")
    return None if prediction is None else Finding("zero-loss", {"elements": prediction.numel()})


def _live(site: Site, like: Tensor) -> Tensor:
    return (site.gradient != 0).expand_as(like) if site.gradient.numel() == 1 else site.gradient != 0


def _divisor(site: Site, like: Tensor) -> int:
    return like.numel() if site.saved("reduction") == 1 else 1


READERS: dict[str, Reader] = {
    "MseLoss": distance,
    "SmoothL1Loss": distance,
    "HuberLoss": distance,
    "NllLoss": likelihood,
    "NllLoss2D": likelihood,
    "BinaryCrossEntropy": cross_entropy,
    "BinaryCrossEntropyWithLogits": cross_entropy,
    "MultiMarginLoss": margin,
    "MultilabelMarginLoss": margin,
}
