"""What the native kernel does, in Python and torch: for where there is no kernel, and for what it doesn't read."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gradwatch.measure.norms import exact_norms, on_host
from gradwatch.measure.sharding.parts import versions_of

__all__ = ["look", "norms"]

# As in _native.c.
# A norm below this is too small to learn from: where one appears, a step is told of at once.
FAINT = 1e-7

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
    measured: list[Tensor] = []
    places_measured: list[int] = []
    elsewhere: list[int] = []
    total = 0.0
    for place in np.frombuffer(places, dtype=np.int64).tolist():  # numpy: no device is read
        gradient = gradients[place]
        if gradient is None:
            written[place] = 0.0
        elif not on_host(gradient):
            elsewhere.append(place)
        elif _is_freed(gradient):
            written[place] = total = math.nan
        else:
            measured.append(gradient)
            places_measured.append(place)
    found = np.array([float(norm) for norm in exact_norms(measured)])  # in CPU memory: a load each
    written[places_measured] = found
    with np.errstate(all="ignore"):
        return total + float(found @ found), int(np.count_nonzero(found < FAINT)), elsewhere or None


def _is_freed(gradient: Tensor) -> bool:
    """Whether its storage was given back under it, as FSDP does; torch would read from address 0."""
    return gradient.layout == torch.strided and not gradient.untyped_storage().nbytes() and gradient.numel() > 0
