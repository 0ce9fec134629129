"""A step between its measurement and its record: some of its numbers may still be on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from gradwatch.blocks import AFTER, BEFORE, Block, BoolArray, NotedClip, StepRow
from gradwatch.measure.devices import Note, PendingNorms
from gradwatch.measure.parameters import OptimizerParameters, RowForm, addresses

__all__ = ["Awaited", "LandedStep", "PendingStep", "SeenClip", "block_of"]


@dataclass(eq=False)  # a call is itself: columns are arrays
class SeenClip:
    """A clipping call as the tap saw it.

    Attributes:
        noted: the call; its ``norm_returned`` is None while the norm is on a device.
        norm: the norm that it returned, or where it is; None where it returned none.
        event: when it was.
    """

    noted: NotedClip
    norm: float | Note | None
    event: int

    def moved(self, old: OptimizerParameters, new: OptimizerParameters) -> SeenClip:
        """The same call, among the columns of a new list of parameters."""
        given = new.given[addresses(old.parameters[c] for c in (*self.noted.columns, *self.noted.repeated))]
        noted = self.noted._replace(columns=given.places, repeated=given.repeated)
        return SeenClip(noted, self.norm, self.event)


@dataclass(slots=True)
class LandedStep:
    """A step whose numbers are on the host.

    Attributes:
        own: what its columns are.
        row: what is known besides norms.
        before: norms before clipping, float64 ``[columns]``.
        after: norms consumed.
    """

    own: RowForm
    row: StepRow
    before: bytes | bytearray
    after: bytes | bytearray


class Awaited(NamedTuple):
    """What a step waits for, or is to be held against, before its numbers are what they are called.

    Attributes:
        norms: what is still on devices; None where nothing is.
        clips: the clip calls of its row.
        loss_scale: the GradScaler's factor.
        still_scaled_by: what the gradients were still multiplied by when they were measured.
        found_inf: above 0 where a fused optimizer has left the update out.
    """

    norms: PendingNorms | None
    clips: Sequence[SeenClip]
    loss_scale: float | Note | None
    still_scaled_by: float | Note | None
    found_inf: float | Note | None

    def number(self, noted: float | Note | None) -> float | None:
        """A number that was noted, once it is there."""
        if not isinstance(noted, Note):
            return noted
        return None if self.norms is None else self.norms.number(noted)


@dataclass(slots=True)
class PendingStep(LandedStep):
    """A step as it was taken; most that a CPU takes have landed by then.

    Attributes:
        covered: where the norm before clipping was measured, ``[columns]``; None where it was everywhere.
        awaited: None where nothing is.
    """

    covered: BoolArray | None = None
    awaited: Awaited | None = None

    def ready(self) -> bool:
        """Whether all of its numbers are on the host; asked, not waited for."""
        return self.awaited is None or self.awaited.norms is None or self.awaited.norms.ready()

    def wait(self) -> None:
        """Wait for them: only for somebody who reads."""
        if self.awaited is not None and self.awaited.norms is not None:
            self.awaited.norms.wait()

    def leave_out(self) -> None:
        """The step is not taken at all."""
        self.row = self.row._replace(skipped=True)

    def landed(self) -> LandedStep:
        """Its numbers, once they are ready."""
        if self.awaited is None and self.covered is None and not self.row.skipped:
            return self
        before, after = (np.frombuffer(side).copy() for side in (self.before, self.after))
        row = self.row
        if self.awaited is not None and self.awaited.norms is not None:
            self.awaited.norms.fill(BEFORE, before)
            self.awaited.norms.fill(AFTER, after)
        if self.covered is not None:
            before = np.where(self.covered, before, after)
        if self.awaited is not None:
            number = self.awaited.number
            scale, loss_scale = number(self.awaited.still_scaled_by), number(self.awaited.loss_scale)
            if scale is not None:
                before, after = before / scale, after / scale
            row = row._replace(
                clips=tuple(clip.noted._replace(norm_returned=number(clip.norm)) for clip in self.awaited.clips),
                skipped=row.skipped or bool(number(self.awaited.found_inf)),
                loss_scale=scale if loss_scale is None else loss_scale,
            )
        if row.skipped:
            after = np.full_like(after, np.nan)
        return LandedStep(self.own, row, before.tobytes(), after.tobytes())


_before, _after, _row = attrgetter("before"), attrgetter("after"), attrgetter("row")


def block_of(steps: Sequence[LandedStep]) -> Block:
    """Steps of one optimizer under one list of parameters, as a block."""
    layout = steps[0].own.layout
    both = np.frombuffer(b"".join((*map(_before, steps), *map(_after, steps))))
    return Block.joined(layout, list(map(_row, steps)), both.reshape(2 * len(steps), len(layout.names)))
