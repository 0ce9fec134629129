"""A step between its measurement and its record: some of its numbers may still be on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.measure.meter import BoolArray, Meter, Note, Taken
from gradwatch.measure.ownership import Consumed
from gradwatch.measure.ring import AFTER, BEFORE
from gradwatch.measure.rows import Clip, Row
from gradwatch.measure.slots import Holding

__all__ = ["SeenClip", "Step"]


@dataclass
class SeenClip:
    """A clipping call as the tap saw it.

    Attributes:
        function: name of the torch function.
        limit: its limit, as passed.
        norm_type: the p of its norm; None for clipping by value.
        slots: the slots that it was given.
        repeated: those that it was given more than once.
        event: when it was.
        norm_returned: the norm that it returned; None where it returned none.
        column: where a norm that is on a device is kept.
    """

    function: str
    limit: float
    norm_type: float | None
    slots: tuple[int, ...]
    repeated: tuple[int, ...] = ()
    event: int = 0
    norm_returned: float | Note | None = None
    column: int = 0


@dataclass
class Step:
    """Everything known of one step when it was taken; flags are in the order of the holding.

    Attributes:
        optimizer: name of the optimizer.
        number: its steps so far, this one included.
        time: Unix time in seconds.
        holding: whose gradients they are.
        covered: the norm before clipping was measured; elsewhere nothing was seen to change the gradient.
        had_before: there was a gradient before clipping.
        has_after: there was one at the step.
        backward_passes: passes that wrote one of them since the step before.
        clips: the clip calls seen.
        loss_scale: the GradScaler's factor.
        still_scaled_by: what the gradients were still multiplied by when they were measured.
        found_inf: above 0 where a fused optimizer has left the update out.
        skipped: the step was not taken at all.
        left_out: parameters of its modules that get a gradient and that no tracked optimizer holds.
        clipped_instead: the optimizer whose gradients were clipped for the step before.
        owned: who wrote the gradients that it consumed, and who had used them.
        taken: where its numbers are, or will be.
    """

    optimizer: str
    number: int
    time: float
    holding: Holding
    covered: BoolArray
    had_before: BoolArray
    has_after: BoolArray
    backward_passes: int
    clips: Sequence[SeenClip]
    loss_scale: float | Note | None
    still_scaled_by: float | Note | None = None
    found_inf: float | Note | None = None
    skipped: bool = False
    owned: Consumed | None = None
    left_out: Mapping[str, tuple[str, ...]] | None = None
    clipped_instead: str | None = None
    taken: Taken | None = None

    def take(self, meter: Meter) -> None:
        """Note what is measured at this moment."""
        numbers = [self.loss_scale, self.still_scaled_by, self.found_inf, *(c.norm_returned for c in self.clips)]
        self.taken = meter.take(self.holding.slot_array, [n for n in numbers if isinstance(n, Note)])

    def ready(self) -> bool:
        """Whether all of its numbers are on the host; asked, not waited for."""
        return self.taken is not None and self.taken.ready()

    def wait(self) -> None:
        """Wait for them: only for somebody who reads."""
        if self.taken is not None:
            self.taken.wait()

    def nonfinite(self) -> tuple[str, ...]:
        """The parameters whose gradient holds NaN or Inf at the step, once its numbers are ready."""
        row = self.row()
        if row.skipped:
            return ()
        bad = row.has_after & ~np.isfinite(row.after)
        return tuple(self.holding.names[place] for place in np.flatnonzero(bad).tolist())  # numpy

    def row(self) -> Row:
        """Its norms as plain numbers, once they are ready."""
        assert self.taken is not None
        sides = self.taken.sides()
        before = np.where(self.covered, sides[BEFORE], sides[AFTER])
        after = sides[AFTER]
        scale = self._number(self.still_scaled_by)
        if scale is not None:
            before, after = before / scale, after / scale
        skipped = self.skipped or bool(self._number(self.found_inf))
        if skipped:
            after = np.full_like(after, np.nan)
        loss_scale = self._number(self.loss_scale)
        return Row(
            before=before,
            had_before=self.had_before,
            after=after,
            has_after=self.has_after,
            time=self.time,
            backward_passes=self.backward_passes,
            clips=[self._clip(clip) for clip in self.clips],
            skipped=skipped,
            loss_scale=scale if loss_scale is None else loss_scale,
            owned=self.owned,
            left_out=self.left_out,
            clipped_instead=self.clipped_instead,
            frozen=np.array([not parameter.requires_grad for parameter in self.holding.parameters]),
        )

    def _clip(self, clip: SeenClip) -> Clip:
        norm = self._number(clip.norm_returned)
        return Clip(clip.function, clip.limit, clip.norm_type, norm, clip.slots, clip.repeated)

    def _number(self, noted: float | Note | None) -> float | None:
        return None if noted is None or self.taken is None else self.taken.number(noted)
