"""Backward passes whose gradients were erased before a step used them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from torch import Tensor

from gradwatch.measure.norms import on_host

__all__ = ["ErasedPasses"]


class _Pass(NamedTuple):
    """A pass: where in the program it was called, and a fingerprint of the weights that it saw."""

    site: int
    weights: Hashable


class ErasedPasses:
    """Those of one optimizer since its last step; made when the first is erased.

    A loop may mean to erase: sharpness-aware minimisation moves the weights before its second pass, and a gradient
    that is looked at and dropped is computed on a line of its own. Of these nothing is counted.
    """

    def __init__(self) -> None:
        self.forget()
        # Of the step in which it is made, the passes before are not known.
        self._moved = True

    def forget(self) -> None:
        """A step is done."""
        self._kept: list[_Pass] = []
        self._erased: list[_Pass] = []
        self._moved = False

    def wrote(self, site: int, parameters: Sequence[Tensor]) -> None:
        """A pass that was called there has written gradients."""
        weights = _fingerprint(parameters)
        # A loop that never steps may erase without end: what is the same is held once.
        for earlier in (*self._erased[-1:], *self._kept[-1:]):
            weights = earlier.weights if earlier.weights == weights else weights
        self._kept.append(_Pass(site, weights))

    def erased(self, parameters: Sequence[Tensor]) -> None:
        """What all passes so far have written is gone."""
        now = _fingerprint(parameters)
        self._moved |= any(one.weights != now for one in self._kept)
        self._erased += self._kept
        self._kept = []

    @property
    def lost(self) -> int:
        """Passes that were to be a part of what is there now, as far as can be told."""
        sites = {one.site for one in (*self._erased, *self._kept)}
        return 0 if self._moved or not self._kept or len(sites) > 1 else len(self._erased)


# Weights that are looked at, and elements of each: some writes change no version.
_WEIGHTS, _ELEMENTS = 8, 64


def _fingerprint(parameters: Sequence[Tensor]) -> Hashable:
    """Changes when the weights do."""
    marks = [(p._version, p.data_ptr()) for p in parameters if not p.is_inference()]
    stride = max(1, len(parameters) // _WEIGHTS)
    return tuple(marks), tuple(map(_sample, parameters[::stride]))


def _sample(parameter: Tensor) -> Hashable:
    """Some elements; none where to read them would wait for a device."""
    if not (on_host(parameter) and parameter.is_contiguous() and parameter.numel()):
        return ()
    elements = parameter.detach().view(-1)
    # In CPU memory there is no device to wait for; asked only in a loop that erases passes.
    return tuple(elements[:: max(1, len(elements) // _ELEMENTS)].tolist())
