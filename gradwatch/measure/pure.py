"""What the native kernel does, in Python and torch: for where there is no kernel, and for what it doesn't read."""

from __future__ import annotations

import math
from array import array
from itertools import chain, compress
from operator import attrgetter, itemgetter, not_
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch.measure.host import host_norms
from gradwatch.measure.norms import REDUCED_AS_THEY_ARE, on_host, real_and_dense
from gradwatch.measure.sharding.parts import versions_of

__all__ = ["holds", "look", "norms", "unchanged"]

# As in _native.c.
# A norm below this is too small to learn from: where one appears, a step is told of at once.
FAINT = 1e-7

# Measured in place of a gradient whose memory is gone.
_NAN = torch.full((), math.nan, device="cpu")

_kind = attrgetter("is_cpu", "layout", "dtype")
_PLAIN_KINDS = {(True, torch.strided, dtype) for dtype in REDUCED_AS_THEY_ARE}

_ABSENT, _SAME, _ONCE, _CHANGED, _NEW = range(5)


def look(parameters: list[Tensor | None], state: bytearray) -> tuple[list[Tensor | None], bytes]:
    """The gradient of each parameter, and how it has changed since the last look: its identity and version.

    No value is read, so that what changes no version, such as ``grad.data.mul_``, is not seen. A gradient is told
    from another by its address: whoever keeps the gradients of the last look is never deceived by one that was
    freed.

    Args:
        parameters: the parameters; None has no gradient.
        state: int64 ``[2, parameters]``: identities, then versions, of the last look; brought up to date. Where
            there is no gradient they are 0 and -1.

    Returns:
        The gradients, and a code for each: ``ABSENT``; ``SAME``, the same tensor in the same version; ``ONCE``,
        the same tensor, changed in place once; ``CHANGED``, the same tensor in any other version; ``NEW``,
        another tensor than before, or one where there was none.
    """
    gradients = [None if parameter is None else parameter.grad for parameter in parameters]
    seen = np.frombuffer(state, dtype=np.int64)[: 2 * len(gradients)].reshape(2, -1)
    now = np.empty_like(seen)
    now[0] = [0 if gradient is None else id(gradient) for gradient in gradients]
    now[1] = versions_of(gradients)
    moved = now[1] - seen[1]
    codes = np.where(moved == 0, _SAME, np.where(moved == 1, _ONCE, _CHANGED))
    codes = np.where(now[0] == 0, _ABSENT, np.where(now[0] == seen[0], codes, _NEW))
    seen[...] = now
    return gradients, codes.astype(np.uint8).tobytes()


def unchanged(parameters: list[Tensor | None], state: bytearray, places: tuple[int, ...]) -> bool:
    """Whether these gradients are as they were at the last look, which is left as it is.

    Args:
        parameters: as ``look`` takes them.
        state: as that has left it.
        places: which of them.
    """
    some = [None if (parameter := parameters[place]) is None else parameter.grad for place in places]
    ids, versions = np.frombuffer(state, dtype=np.int64).reshape(2, -1)[:, list(places)].tolist()
    return bool(versions_of(some) == versions and [0 if g is None else id(g) for g in some] == ids)


def holds(groups: list[dict[str, Any]], addresses: bytes) -> bool:
    """Whether an optimizer's parameter groups hold the parameters of these addresses, in this order."""
    held = chain.from_iterable(map(itemgetter("params"), groups))
    return array("q", map(id, held)).tobytes() == addresses


def norms(gradients: list[Tensor | None], places: bytes, out: bytearray) -> tuple[float, int, list[int] | None]:
    """See ``gradwatch.measure.kernel.norms``."""
    written = np.frombuffer(out, dtype=np.float64)
    measured = np.frombuffer(places, dtype=np.int64).tolist()  # numpy: no device is read
    types = set(map(type, map(gradients.__getitem__, measured)))
    if type(None) in types:
        types.remove(type(None))
        written[[place for place in measured if gradients[place] is None]] = 0.0
        measured = [place for place in measured if gradients[place] is not None]
    tensors = cast("list[Tensor]", list(map(gradients.__getitem__, measured)))
    elsewhere: list[int] = []
    # Inf times 0 and the overflow of float64 squares are values here, not errors.
    with torch.no_grad(), np.errstate(all="ignore"):
        if not (types <= {Tensor, nn.Parameter} and _are_plain(tensors)):
            here = list(map(on_host, tensors))
            elsewhere = list(compress(measured, map(not_, here)))
            measured, tensors = list(compress(measured, here)), list(map(_plain, compress(tensors, here)))
        found = host_norms(tensors)
        squares = float(found @ found)
    written[measured] = found
    return squares, int(np.count_nonzero(found < FAINT)), elsewhere or None


def _are_plain(tensors: list[Tensor]) -> bool:
    """Whether all can be read as they are: the usual case, asked without a line for each."""
    if not set(map(_kind, tensors)) <= _PLAIN_KINDS:
        return False
    # One without memory is empty, or was freed: see below.
    return all(map(torch.UntypedStorage.nbytes, map(Tensor.untyped_storage, tensors)))


def _plain(tensor: Tensor) -> Tensor:
    """What to measure of a tensor in the memory of the CPU."""
    if tensor.layout == torch.strided and not tensor.untyped_storage().nbytes() and tensor.numel():
        # Its storage was given back under it, as FSDP does; torch would read from address 0.
        return _NAN
    return real_and_dense(tensor)
