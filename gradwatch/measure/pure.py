"""What the native kernel does, in Python and torch: for where there is no kernel, and for what it doesn't read."""

from __future__ import annotations

import math
from itertools import compress
from operator import attrgetter, not_
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch.measure.host import host_norms
from gradwatch.measure.norms import REDUCED_AS_THEY_ARE, on_host, real_and_dense
from gradwatch.measure.sharding.parts import versions_of

__all__ = ["look", "norms"]

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
