"""Fused layers, taken apart again: a recurrent layer's gates and an attention's weights, from what they saved."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.factors import name_factor
from gradwatch.diagnose.numbers import share
from gradwatch.diagnose.site import Finding, Site

__all__ = ["READERS"]

Reader = Callable[[Site], Finding | None]

_UNREAD = "zero-loss, unused, no-grad, detached"


def fused_lstm(site: Site) -> Finding | None:
    """One layer in one direction: input, forget and output gate are all at 0 or 1, or the output gate is shut."""
    gates = _lstm_gates(site)
    if gates is None:
        return None
    enters, forgets, candidate, leaves = gates
    sigmoids = torch.stack([enters, forgets, leaves])
    ends = (sigmoids == 0) | (sigmoids == 1)
    evidence: dict[str, float | int | str] = {
        "share_saturated": share(ends),
        "share_output_gate_at_0": share(leaves == 0),
        "share_candidate_saturated": share(candidate.abs() >= 1),
        "units": enters.shape[-1],
    }
    if bool(ends.all()) or bool((leaves == 0).all()):
        return Finding("saturated-sigmoid", evidence)
    weights = site.tensor("weight0"), site.tensor("weight1")
    zeros = [weight is not None and not bool((weight != 0).any()) for weight in weights]
    if (site.index == 0 and zeros[0]) or (site.index == 5 and zeros[1]):
        return Finding("zero-weight", {"largest_weight": 0.0})
    before = site.tensor("input")
    if site.index == 1 and before is not None and not bool((before != 0).any()):
        return Finding("zero-input", {"largest_input": 0.0})
    return Finding("unknown", {**evidence, "ruled_out": f"{_UNREAD}, saturated-sigmoid, zero-input, zero-weight"})


def _lstm_gates(site: Site) -> tuple[Tensor, ...] | None:
    """Input, forget, candidate and output gate at every step, (time, batch, units)."""
    names = ("input", "weight0", "weight1", "weight2", "weight3", "result0", "hx_")
    read = [site.tensor(name) for name in names]
    if any(value is None for value in read):
        return None
    before, from_input, from_hidden, bias, other_bias, after, start = (
        value for value in read if value is not None
    )
    hidden = torch.cat([start.reshape(1, *after.shape[1:]), after[:-1]])
    if site.saved("reverse"):
        hidden = torch.cat([after[1:], start.reshape(1, *after.shape[1:])])
    raw = before @ from_input.T + hidden @ from_hidden.T + bias + other_bias
    enters, forgets, candidate, leaves = raw.chunk(4, dim=-1)
    return enters.sigmoid(), forgets.sigmoid(), candidate.tanh(), leaves.sigmoid()


def attention(site: Site) -> Finding | None:
    """Fused attention: query or key is zero, or the weights are one-hot in every row."""
    query, key = site.tensor("query"), site.tensor("key")
    if query is None or key is None or site.index > 1:
        return None
    factor = key if site.index == 0 else query
    if not bool((factor != 0).any()):
        return name_factor(site, 1 - site.index, factor)
    scores = query.double() @ key.double().mT * (site.saved("scale") or 1 / math.sqrt(query.shape[-1]))
    masked = _masked_scores(site, scores)
    one_hot = (masked.softmax(dim=-1).to(query.dtype) == 1).any(dim=-1)
    if not bool(one_hot.all()):
        return None
    evidence = {"share_one_hot": share(one_hot), "candidates": key.shape[-2]}
    return Finding(_kind_of_attention(scores, masked), evidence)


def _masked_scores(site: Site, scores: Tensor) -> Tensor:
    mask = site.tensor("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.double()
    if site.saved("is_causal"):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores


def _kind_of_attention(scores: Tensor, masked: Tensor) -> str:
    if scores.shape[-1] == 1:
        return "unknown"
    left = torch.isfinite(masked).sum(dim=-1)
    return "masked" if bool((left == 1).all()) else "saturated-sigmoid"


READERS: dict[str, Reader] = {
    "MkldnnRnnLayer": fused_lstm,
    "ScaledDotProductFlashAttentionForCpu": attention,
    "ScaledDotProductFlashAttention": attention,
    "ScaledDotProductEfficientAttention": attention,
}
