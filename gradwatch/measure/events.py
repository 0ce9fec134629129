"""What follows from each event of a training loop for the gradients of an optimizer: pure functions of flags.

A gradient is followed by what torch tells of its tensor without reading a value: which object it is, and its
version, which every in-place change raises. ``kernel.look`` gives one code a parameter: how that has changed since
the look before. What is known of each gradient is a set of flags, and each event is a function from flags and
codes to flags.

Where codes do not tell, because something else has changed the tensor in between, the gradient counts as begun
anew: no fault is claimed on a guess. All arrays are numpy's: no device is read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gradwatch.blocks import BoolArray, Facts
from gradwatch.measure.kernel import ABSENT, CHANGED, NEW, ONCE, SAME

__all__ = [
    "ABSENT",
    "BEGUN_ANEW",
    "CHANGED",
    "MEASURED",
    "NEW",
    "ONCE",
    "OUTDATED",
    "SAME",
    "TOUCHED",
    "WRITTEN",
    "Consumed",
    "Flags",
    "Numbers",
    "has",
]


Flags = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

# What is known of a gradient. "Its step" is that of the optimizer that holds the parameter.
_BITS = (1 << n for n in range(32))
FOLLOWED = next(_BITS)  # nothing but what was seen has changed it
UNTOUCHED = next(_BITS)  # nothing but clip calls has changed it since its last step
EVER_WRITTEN = next(_BITS)  # some backward pass has written it
WRITTEN = next(_BITS)  # one has since its last step that was measured
USED = next(_BITS)  # its last step consumed it as it is
SHARED = next(_BITS)  # a step of another optimizer consumed what the same pass had written
ELSEWHERE = next(_BITS)  # a step of another optimizer that holds the same parameter consumed it
LEAKED = next(_BITS)  # a part of it had been used before the rest was added
CLIPPED_PART = next(_BITS)  # a clip call was given it as it is
CLIPPED_BETWEEN = next(_BITS)  # one was given a part of it before the rest was added
CLIPPED = next(_BITS)  # one was given it since its last step that was measured
MISSED = next(_BITS)  # it was written after the last of those
BEGUN_ANEW = next(_BITS)  # since the last clip call, a pass has written it anew, and no step had consumed what was
MEASURED = next(_BITS)  # its norm before clipping was measured since its last step
OUTDATED = next(_BITS)  # a clip call was given it since: the norm before is not to be had any more
IN_PASS = next(_BITS)  # it was measured within the backward pass that runs now
TOUCHED = next(_BITS)  # it has changed within the backward pass that runs now, and not by what was seen


class Consumed(NamedTuple):
    """What a step consumes.

    Attributes:
        facts: what the record tells of it.
        covered: where the norm before clipping was measured, ``[columns]``; None where it was everywhere.
    """

    facts: Facts
    covered: BoolArray | None


# Flags, losses, and further fields of ``Seen``.
_Known = tuple[Flags, Numbers, dict[str, Any]]


def _codes(codes: bytes) -> Codes:
    return np.frombuffer(codes, dtype=np.uint8)


def _mask(columns: Collection[int], count: int) -> BoolArray:
    mask = np.zeros(count, dtype=bool)
    mask[list(columns)] = True
    return mask


def _columns(mask: BoolArray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())  # numpy: no device is read


def _is_of_now(flags: Flags) -> BoolArray:
    """Where the norm before clipping is measured, and no pass that runs now has changed the gradient since."""
    return has(flags, MEASURED) & (has(flags, IN_PASS) | ~has(flags, TOUCHED))


def _places(mask: BoolArray) -> bytes:
    return np.flatnonzero(mask).astype(np.int64).tobytes()


def has(flags: Flags, flag: int) -> BoolArray:
    """Which of them have any of these, ``[columns]``."""
    found: BoolArray = (flags & flag) != 0
    return found


def _set(flags: Flags, flag: int, where: BoolArray | bool = True) -> None:
    flags |= np.where(where, np.uint32(flag), np.uint32(0))


def _clear(flags: Flags, flag: int, where: BoolArray | bool = True) -> None:
    flags &= np.where(where, np.uint32(~flag & 0xFFFFFFFF), np.uint32(0xFFFFFFFF))


def _changed_by_the_loop(flags: Flags, codes: Codes) -> None:
    """What no event of ours explains: the gradient is neither what was followed nor what was clipped."""
    _clear(flags, FOLLOWED | UNTOUCHED | CLIPPED_PART, codes != SAME)


def _measuring(flags: Flags, codes: Codes, wanted: BoolArray, in_pass: bool = False) -> bytes:
    """These are measured now; a gradient that is not there is as if it had never been measured."""
    present = wanted & (codes != ABSENT)
    _clear(flags, MEASURED | OUTDATED | IN_PASS, wanted)
    _set(flags, MEASURED | (IN_PASS if in_pass else 0), present)
    return _places(present)


def beginning(flags: Flags, losses: Numbers, codes: bytes) -> _Known:
    """A backward pass is about to begin: what has changed since the last event was changed by the loop."""
    seen = _codes(codes)
    _clear(flags, IN_PASS | TOUCHED)
    _changed_by_the_loop(flags, seen)
    # torch does not count what ``.data.zero_()`` does: of what a step has used, values alone can tell.
    as_used = has(flags, FOLLOWED) & has(flags, USED | SHARED)
    # What was measured and clipped, and changed by the loop besides, was scaled by it, or zeroed.
    clipped = has(flags, OUTDATED) & ~has(flags, FOLLOWED) & (seen != ABSENT)
    return flags, losses, {"look_at": _columns(as_used | clipped), "erased": _perhaps_erased(flags, seen)}


def _perhaps_erased(flags: Flags, seen: Codes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Of what passes wrote and no step has used, the columns that are gone, and others that have changed."""
    unused = has(flags, EVER_WRITTEN) & ~has(flags, USED | SHARED | ELSEWHERE)
    if not (unused & (seen != SAME)).any():
        return None
    return _columns(unused & (seen == ABSENT)), _columns(unused & (seen != ABSENT) & (seen != SAME))


def zeroed(flags: Flags, losses: Numbers, columns: tuple[int, ...]) -> _Known:
    """These were zeroed, though no code has told it: what was measured and clipped before is gone."""
    _clear(flags, FOLLOWED | UNTOUCHED | OUTDATED, _mask(columns, len(flags)))
    return flags, losses, {}


def ended(
    flags: Flags,
    losses: Numbers,
    codes: bytes,
    columns: frozenset[int],
    compared: frozenset[int],
    loss: int,
    measuring: bool,
) -> _Known:
    """A pass has ended.

    Args:
        flags: before.
        losses: before.
        codes: of the look now.
        columns: that it has written.
        compared: those that have no hook: it has written those of them that have changed since it began.
        loss: number of the loss that it was of.
        measuring: the norms before clipping are wanted.
    """
    seen = _codes(codes)
    written = _mask(columns, len(flags)) | (_mask(compared, len(flags)) & (seen > SAME))
    # A pass that adds to what was there raises the version by one; one that starts anew gives another version.
    added = written & has(flags, FOLLOWED) & (seen == ONCE)
    # A hook has clipped these within this very pass, and nothing has come on top: as if it had clipped behind it.
    clipped_inside = has(flags, IN_PASS) & has(flags, OUTDATED) & (seen == SAME)
    # The same loss once more is an accumulation over another optimizer's steps.
    others = has(flags, SHARED) & (losses != loss)
    leaked = added & (has(flags, LEAKED | USED) | others)
    between = added & has(flags, CLIPPED_BETWEEN | CLIPPED_PART)
    # The loop may have scaled it before it was clipped: what was clipped is a part of it all the same.
    added_to_clipped = written & has(flags, CLIPPED_PART) & (seen == ONCE)
    missed, elsewhere = has(flags, CLIPPED) & ~clipped_inside, has(flags, ELSEWHERE)
    _clear(flags, UNTOUCHED, seen != SAME)
    _clear(flags, FOLLOWED, (seen != SAME) & ~written)
    _clear(flags, USED | SHARED | ELSEWHERE | LEAKED | CLIPPED_BETWEEN, written)
    _clear(flags, CLIPPED_PART, written & ~clipped_inside)
    _set(flags, FOLLOWED | WRITTEN | EVER_WRITTEN, written)
    _set(flags, LEAKED, leaked)
    _set(flags, CLIPPED_BETWEEN, between)
    _set(flags, MISSED, written & missed)
    _set(flags, BEGUN_ANEW, written & ~added & ~added_to_clipped & ~elsewhere & ~clipped_inside)
    places = b""
    if measuring:
        # What an earlier pass wrote may have been averaged or zeroed since; what was clipped since stays as it was
        # measured, unless it is gone.
        earlier = has(flags, MEASURED) & (~has(flags, OUTDATED) | (seen == ABSENT))
        places = _measuring(flags, seen, (written & ~clipped_inside) | earlier)
    _clear(flags, IN_PASS | TOUCHED)
    return flags, np.where(written, loss, losses), {"places": places, "written": frozenset(_columns(written))}


def clipping(
    flags: Flags, losses: Numbers, codes: bytes, columns: tuple[int, ...], due: bool, in_pass: bool
) -> _Known:
    """A clip call is about to change these columns: what nothing has measured yet is measured, if due.

    Within a pass that has added to what earlier ones had left, that is measured anew.
    """
    seen, given = _codes(codes), _mask(columns, len(flags))
    _changed_by_the_loop(flags, seen)
    _set(flags, TOUCHED, in_pass & (seen != SAME))
    places = _measuring(flags, seen, given & ~_is_of_now(flags), in_pass) if due else b""
    _set(flags, OUTDATED, given)
    return flags, losses, {"places": places}


def clipped(flags: Flags, losses: Numbers, codes: bytes, columns: tuple[int, ...]) -> _Known:
    """It is done: what was followed up to it is followed on."""
    seen, given = _codes(codes), _mask(columns, len(flags))
    _clear(flags, FOLLOWED | UNTOUCHED, (seen != SAME) & ~given)
    _clear(flags, MISSED | BEGUN_ANEW, given)
    _set(flags, CLIPPED | CLIPPED_PART, given)
    return flags, losses, {}


def unscaled(flags: Flags, losses: Numbers, codes: bytes, due: bool) -> _Known:
    """A GradScaler has divided the gradients: all but those that were clipped are measured anew."""
    seen, clipped = _codes(codes), has(flags, MEASURED) & has(flags, OUTDATED)
    _changed_by_the_loop(flags, seen)
    places = _measuring(flags, seen, ~clipped) if due else b""
    return flags, losses, {"places": places}


def consumed(flags: Flags, losses: Numbers, codes: bytes, in_pass: bool, frozen: tuple[int, ...]) -> _Known:
    """A step consumes the gradients as they are.

    Args:
        flags: before.
        losses: before.
        codes: of the look now.
        in_pass: it does so inside a backward pass, which may have written some of them.
        frozen: columns whose parameter requires no gradient.
    """
    seen = _codes(codes)
    present = seen != ABSENT
    unwritten = ~has(flags, WRITTEN)
    _set(flags, TOUCHED, in_pass & (seen != SAME))
    covered = _is_of_now(flags)
    facts = Facts(
        had_before=covered | present,
        has_after=present,
        unwritten=unwritten,
        stale=unwritten & has(flags, UNTOUCHED) & (seen == SAME),
        leaked=has(flags, LEAKED),
        missed_by_clip=has(flags, MISSED),
        clipped_between=has(flags, CLIPPED_BETWEEN),
        frozen=_mask(frozen, len(flags)),
    )
    _changed_by_the_loop(flags, seen)
    consumed = Consumed(facts, None if covered.all() else covered)
    return flags, losses, {"consumed": consumed}


def skipped(flags: Flags, losses: Numbers, codes: bytes, due: bool) -> _Known:
    """The step was not taken: nothing is consumed."""
    covered = has(flags, MEASURED)
    nothing = np.zeros(len(flags), dtype=bool)
    facts = Facts(covered, _codes(codes) != ABSENT, *[nothing] * 6)
    _forget_the_step(flags, due)
    return flags, losses, {"consumed": Consumed(facts, None)}


def left(flags: Flags, losses: Numbers, due: bool) -> _Known:
    """The step is done and leaves its gradients like this; a fused one has changed them in place."""
    _clear(flags, CLIPPED_PART | CLIPPED_BETWEEN | USED)
    _set(flags, FOLLOWED | UNTOUCHED)
    _set(flags, USED, has(flags, EVER_WRITTEN))
    _forget_the_step(flags, due)
    return flags, losses, {}


def _forget_the_step(flags: Flags, due: bool) -> None:
    _clear(flags, MEASURED | OUTDATED | IN_PASS | TOUCHED | (WRITTEN | CLIPPED | MISSED if due else 0))


def shared(flags: Flags, losses: Numbers, columns: tuple[int, ...]) -> _Known:
    """Another optimizer's step has consumed what the pass wrote that had written these."""
    _set(flags, SHARED, _mask(columns, len(flags)))
    return flags, losses, {}


def elsewhere(flags: Flags, losses: Numbers, columns: tuple[int, ...]) -> _Known:
    """A step of another optimizer has consumed these columns, which it holds too."""
    _set(flags, ELSEWHERE, _mask(columns, len(flags)))
    return flags, losses, {}
