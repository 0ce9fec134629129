"""What the record of a step shows of modules that are silent in it, and how that is said."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gradwatch.judge.at_hand import owned, silence
from gradwatch.printing import called
from gradwatch.records import Cause, GroupNorms, StepRecord

__all__ = ["Known", "look_into", "norms_of", "words_of"]


class Known(NamedTuple):
    """Why a module is silent, as far as its record shows, whether a backward reached it, and how it is silent."""

    cause: Cause | None
    unreached: bool
    how: str

    def reason(self, doubt: str | None) -> tuple[object, ...]:
        """The same for modules that are silent for one reason."""
        return self.how, self.unreached, self.cause and self.cause.kind, doubt


def norms_of(record: StepRecord, modules: Sequence[str | None]) -> GroupNorms:
    """The norms of all of them together; NaN where they are missing."""
    table = record.owners or record.modules
    if not table:
        return GroupNorms(record.norm_before, record.norm_after)
    sides = zip(*(table[module] for module in modules if module is not None), strict=True)
    return GroupNorms(*map(_together, sides))


def _together(norms: Sequence[float]) -> float:
    there = [norm for norm in norms if not math.isnan(norm)]
    return math.hypot(*there) if there else math.nan


def look_into(
    record: StepRecord, path: str | None, modules: Sequence[str | None], shown: Mapping[str | None, Cause]
) -> Known:
    """What the record shows of modules that are silent and told under one name.

    Args:
        record: the step.
        path: that name.
        modules: all that bear it.
        shown: those of which a look has shown that their gradient is rounding.
    """
    names, norms = owned(record, modules), norms_of(record, modules)
    found = [shown[module] for module in modules if module in shown]
    if found and len(found) == len(modules):
        return Known(found[0], False, "rounding")
    if norms.norm_after > 0.0:
        # Next to nothing in this step, and exactly 0 in others.
        return Known(None, False, "zero")
    at_hand = silence(record, record.optimizer if path is None else path, names, norms)
    return Known(at_hand, at_hand is None and _unreached(record, names, norms), _how(norms))


def _how(norms: GroupNorms) -> str:
    if norms.norm_before > 0.0:
        return "erased"
    return "missing" if math.isnan(norms.norm_after) else "zero"


def _unreached(record: StepRecord, names: Collection[str], norms: GroupNorms) -> bool:
    """No backward has written any of its gradients, though one ran."""
    if record.backward_passes == 0 or norms.norm_before > 0.0:
        return False
    if math.isnan(norms.norm_after):
        return True
    return bool(names) and set(names) <= set(record.unwritten)


def words_of(record: StepRecord, module: str | None, norms: GroupNorms, known: Known, doubt: str | None) -> str:
    """The verdict on modules of this name and these norms.

    Args:
        record: the step.
        module: as they are called; None is the optimizer as a whole.
        norms: of all of them together.
        known: what was found out.
        doubt: why it may be meant.
    """
    what = "the optimizer's gradient" if module is None else f"the gradient of {called(module)}"
    if known.how == "rounding":
        return f"{what} is 0 but for rounding errors of {norms.norm_after:.3g}, so nothing is learned there"
    if norms.norm_after > 0.0:
        return f"{what} is next to nothing, {norms.norm_after:.3g}, and exactly 0 in other steps"
    missing = math.isnan(norms.norm_after)
    if norms.norm_before > 0.0:
        left = "missing" if missing else "exactly 0"
        return f"{what} was {norms.norm_before:.3g} after backward and {left} at the step: it was erased between"
    is_so = f"{what} is missing: .grad is None for each of its parameters" if missing else f"{what} is exactly 0"
    return is_so + _so_what(record, known, doubt)


def _so_what(record: StepRecord, known: Known, doubt: str | None) -> str:
    if known.cause is not None and known.cause.kind == "frozen":
        others = (
            "the optimizer holds it for nothing"
            if doubt
            else "nor does any other, so this optimizer learns nothing"
        )
        return f", since none of its parameters requires one: {others}"
    if record.backward_passes == 0:
        return ": no backward pass has written it since the step before, so nothing is learned there"
    if known.unreached:
        return ": the loss does not reach it, so nothing is learned there"
    return _BY_DOUBT.get(doubt, ", so nothing is learned there")


_BY_DOUBT: dict[str | None, str] = {
    "paused": ", so nothing is learned there now; other modules pause as well, so that may be meant",
    "faded": ", as is that of all the optimizer holds: the norm has faded to 0, and nothing is learned now",
}
