"""Operations that let the gradient of some elements through and not that of others: all were left out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.diagnose.numbers import same_everywhere, share
from gradwatch.diagnose.saved import signed
from gradwatch.diagnose.site import Finding, Site
from gradwatch.diagnose.walk import operation

__all__ = ["READERS"]

Reader = Callable[[Site], Finding | None]

_OVERWRITING = [
    "AsStridedScatter", "ConstantPadNd", "Copy", "CopyBackwards", "CopySlices", "DiagonalScatter", "Fill",
    "IndexCopy", "IndexFill", "MaskedScatter", "Scatter", "SelectScatter", "SliceScatter", "Tril", "Triu", "Zero",
]  # fmt: skip


def masked_fill(site: Site) -> Finding | None:
    """A mask covers all of it."""
    mask = site.tensor("mask")
    if mask is None or not same_everywhere(mask, site.gradient != 0):
        return None
    return _masked(site, mask)


def where(site: Site) -> Finding | None:
    """``torch.where`` took the other branch everywhere."""
    condition = site.tensor("condition")
    if condition is None:
        return None
    left_out = ~condition.bool() if site.index == 0 else condition.bool()
    return _masked(site, left_out) if same_everywhere(left_out, site.gradient != 0) else None


def dropout(site: Site) -> Finding | None:
    """Dropout dropped everything."""
    kept = site.tensor("result1")
    if kept is None or not same_everywhere(~kept.bool(), site.gradient != 0):
        return None
    return Finding("masked", {"share_masked": share(~kept.bool()), "probability": site.saved("p") or 0.0})


def extremum(site: Site) -> Finding | None:
    """Minimum or maximum of two: the other one was taken everywhere."""
    first, second = site.tensor("self"), site.tensor("other")
    if first is None or second is None:
        return None
    mine, other = (first, second) if site.index == 0 else (second, first)
    not_taken = mine > other if operation(site.node) == "Minimum" else mine < other
    if not same_everywhere(not_taken, site.gradient != 0):
        return None
    constant = site.graph.inputs[site.node][1 - site.index][0] is None
    if constant and site.place.of_loss(site.node, site.index) and not bool((other != 0).any()):
        return Finding("zero-loss", {"share_at_zero": share(not_taken), "elements": not_taken.numel()})
    return Finding("clamped" if constant else "masked", {"share_not_taken": share(not_taken)})


def embedding(site: Site) -> Finding | None:
    """Every index that a gradient came in for is the padding index."""
    indices, padding = site.tensor("indices"), site.saved("padding_idx")
    if indices is None or padding is None:
        return None
    padding = signed(padding)  # below 0 where there is none
    live = (site.gradient != 0).flatten(indices.dim()).any(dim=-1)
    if padding < 0 or not same_everywhere(indices == padding, live.reshape(indices.shape)):
        return None
    return Finding("masked", {"share_padding": share(indices == padding), "padding_idx": padding})


def index_put(site: Site) -> Finding | None:
    """An assignment by index wrote over all of it."""
    indices = site.saved("indices")
    if site.index != 0 or indices is None or site.saved("accumulate"):
        return None
    written = torch.zeros(site.gradient.shape, dtype=torch.bool, device=site.gradient.device)
    written[tuple(slice(None) if index is None else index for index in indices)] = True
    return _masked(site, written) if same_everywhere(written, site.gradient != 0) else None


def written_over(site: Site) -> Finding | None:
    """``fill_``, ``scatter``, ``tril`` and their kin: what a gradient came in for was written over or cut away.

    They only move elements or leave them out, so a gradient that came in and went nowhere is that of the latter.
    """
    live = int((site.gradient != 0).sum())
    return Finding("masked", {"share_masked": 1.0, "elements": live}) if site.index == 0 else None


def nothing_selected(site: Site) -> Finding | None:
    """An index that selects no element."""
    return None if site.gradient.numel() else Finding("masked", {"share_masked": 1.0, "selected": 0})


def cut_off(site: Site) -> Finding | None:
    """A slice that leaves out all of one of the tensors that were joined; of one alone, a slice of no element."""
    if site.part is None or site.outgoing is None:
        return nothing_selected(site)
    if signed(site.saved("dim")) % site.outgoing.dim() != site.part.dim:
        return None
    size = site.outgoing.shape[site.part.dim]
    bounds = slice(signed(site.saved("start")), signed(site.saved("end")), site.saved("step"))
    kept = range(*bounds.indices(size))
    if any(site.part.start <= index < site.part.start + site.part.length for index in kept):
        return None
    elements = site.part.of(site.outgoing).numel()
    return Finding("masked", {"share_masked": 1.0, "elements": elements, "reason": "a slice leaves it out"})


def not_a_number(site: Site) -> Finding | None:
    """``nan_to_num`` replaced every value."""
    before = site.tensor("self")
    if before is None or not same_everywhere(~torch.isfinite(before), site.gradient != 0):
        return None
    return _masked(site, ~torch.isfinite(before))


def softmax(site: Site) -> Finding | None:
    """Every row that a gradient came in for is one-hot."""
    result, dim = site.tensor("result"), site.saved("dim")
    if result is None:
        return None
    dim = signed(dim)
    if result.shape[dim] == 1:
        return Finding(
            "unknown", {"reason": "softmax over one element is constant", "ruled_out": "masked, underflow"}
        )
    rows = _live_rows(site.gradient, dim)
    one_hot = (result == 1).any(dim=dim)
    if not same_everywhere(one_hot, rows):
        return None
    evidence: dict[str, float | int | str] = {"share_one_hot": share(one_hot), "candidates": result.shape[dim]}
    return Finding(_kind_of_one_hot(site), evidence)


def log_softmax(site: Site) -> Finding | None:
    """Every row is sure of the class that it is taught: the loss is satisfied."""
    result, dim = site.tensor("result"), site.saved("dim")
    if result is None:
        return None
    dim = signed(dim)
    sure = (result.exp() == 1).any(dim=dim)
    rows = _live_rows(site.gradient, dim)
    if not same_everywhere(sure, rows):
        return None
    kind = (
        "zero-loss" if site.place.linear_above(site.node, also=("NllLoss", "NllLoss2D")) else "saturated-sigmoid"
    )
    return Finding(kind, {"share_one_hot": share(sure), "candidates": result.shape[dim]})


def _kind_of_one_hot(site: Site) -> str:
    """One-hot by a mask that leaves one candidate, or since one score towers above the rest."""
    producer = site.graph.producer(site.node, site.index)
    scores_masked = producer is not None and operation(producer) in ("MaskedFill", "Where")
    return "masked" if scores_masked or _adds_minus_infinity(site) else "saturated-sigmoid"


def _adds_minus_infinity(site: Site) -> bool:
    call = site.place.call(site.node)
    return call is not None and any(values.low == float("-inf") for values in call.inputs)


def _live_rows(gradient: Tensor, dim: int) -> Tensor:
    return (gradient != 0).any(dim=dim)


def _masked(site: Site, left_out: Tensor) -> Finding:
    kind = "zero-loss" if site.place.of_loss(site.node, site.index) else "masked"
    return Finding(kind, {"share_masked": share(left_out), "elements": left_out.numel()})


READERS: dict[str, Reader] = {
    "MaskedFill": masked_fill,
    "Where": where,
    "NativeDropout": dropout,
    "Minimum": extremum,
    "Maximum": extremum,
    "Embedding": embedding,
    "IndexPut": index_put,
    **dict.fromkeys(_OVERWRITING, written_over),
    "Index": nothing_selected,
    "IndexSelect": nothing_selected,
    "Slice": cut_off,
    "MaskedSelect": nothing_selected,
    "NanToNum": not_a_number,
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
}
