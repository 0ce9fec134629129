"""Backward passes whose gradients were erased before a step used them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gradwatch.measure.norms import on_host

__all__ = ["ErasedPasses", "Wrote"]

# Of each optimizer that a pass has written some gradients of, which one it is and the columns.
Wrote = frozenset[tuple[int, frozenset[int]]]


@dataclass
class _Pass:
    """A pass: where in the program it was called, what it wrote, and what has become of that.

    Attributes:
        site: the place in the program.
        weights: a fingerprint of the weights that it saw.
        written: all that it wrote, also of other optimizers.
        is_own: it wrote nothing of others.
        kept: the columns that still hold what it wrote.
        lost: those from which it was erased.
    """

    site: int
    weights: Hashable
    written: frozenset[Hashable]
    is_own: bool
    kept: frozenset[int]
    lost: frozenset[int] = frozenset()


class ErasedPasses:
    """Those of one optimizer since its last step; made when the first is erased.

    A loop may mean to erase. Sharpness-aware minimisation moves the weights before its second pass, and a gradient
    that is looked at and dropped is computed on a line of its own: of these nothing is counted. And a generator's
    pass runs through the discriminator, which is then zeroed and gets its own: see ``_certainly``.
    """

    # Of a step with more passes nothing is told.
    MOST = 256

    def __init__(self) -> None:
        self._passes: list[_Pass] = []
        # Columns that were erased, and those that were so once more.
        self._once: set[int] = set()
        self._again: set[int] = set()
        # Of the step in which it is made, the passes before are not known.
        self._moved = True

    def next_step(self) -> bool:
        """A step is done; whether anything was erased before it."""
        erased = bool(self._once) or self._moved
        self._passes, self._once, self._again, self._moved = [], set(), set(), False
        return erased

    def wrote(
        self, site: int, columns: Collection[int], everything: Wrote | None, parameters: Sequence[Tensor]
    ) -> None:
        """A pass that was called there has written gradients.

        Args:
            site: where it was called.
            columns: of this optimizer.
            everything: all that it wrote, whichever optimizer holds it; None where there is one alone.
            parameters: all that the optimizer holds.
        """
        if len(self._passes) >= self.MOST:
            # A loop that never steps may erase without end.
            self._passes, self._moved = [], True
        own, weights = frozenset(columns), _fingerprint(parameters)
        written = own if everything is None else frozenset(_one_by_one(everything))
        for earlier in self._passes[-1:]:
            # What is the same is held once.
            weights = earlier.weights if earlier.weights == weights else weights
            written = earlier.written if earlier.written == written else written
        self._passes.append(_Pass(site, weights, written, everything is None or len(everything) == 1, own))

    def erased(self, columns: Collection[int], parameters: Sequence[Tensor]) -> None:
        """What passes have written to these columns so far is gone."""
        now, gone, before = _fingerprint(parameters), frozenset(columns), frozenset(self._once)
        for one in self._passes:
            taken = one.kept & gone
            if taken:
                self._moved |= one.weights != now
                self._again |= taken & before
                self._once |= taken
                one.kept -= taken
                one.lost |= taken

    @property
    def lost(self) -> tuple[int, tuple[int, ...]]:
        """How many passes were to be a part of what is there now, as far as can be told.

        And the columns that they were erased from; none where it is all that was written.
        """
        if self._moved or len({one.site for one in self._passes}) > 1:
            return 0, ()
        certain = [self._certainly(one, self._passes[after:]) for after, one in enumerate(self._passes, 1)]
        erased = set[int]().union(*certain)
        is_all = all(erased.issuperset(one.kept | one.lost) for one in self._passes)
        return sum(map(bool, certain)), () if is_all else tuple(sorted(erased))

    def _certainly(self, one: _Pass, later: Iterable[_Pass]) -> set[int]:
        """The columns from which it was erased by mistake: a later pass has written them anew, and is kept.

        A pass may have run through them on its way to something else, and the later one be their own. That cannot
        be where nothing is left of it at all, nor where the later one has written the same. Nor where they were
        erased more than once, and so before a pass that is not their own, and the later one has written something
        else besides: each was on its way from something of its own.
        """
        found = set[int]()
        for other in later:
            anew = one.lost & other.kept
            if (one.is_own and not one.kept) or one.written == other.written:
                found |= anew
            elif other.written - one.written:
                found |= anew & self._again
        return found


def _one_by_one(everything: Wrote) -> Iterable[Hashable]:
    return ((optimizer, column) for optimizer, columns in everything for column in columns)


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
