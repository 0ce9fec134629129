"""A step between its measurement and its record: some of its numbers may still be on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.blocks import AFTER, BEFORE, Block, FloatArray, NotedClip, StepRow
from gradwatch.measure.devices import Note, PendingNorms
from gradwatch.measure.parameters import OptimizerParameters, RowForm
from gradwatch.measure.provenance import Consumed

__all__ = ["LandedStep", "PendingStep", "SeenClip", "block_of"]


@dataclass(eq=False)  # a call is itself: columns are arrays
class SeenClip:
    """A clipping call as the tap saw it.

    Attributes:
        noted: the call; its ``norm_returned`` is None while the norm is on a device.
        norm: the norm that it returned, or where it is; None where it returned none.
        columns: the columns that it was given.
        event: when it was.
    """

    noted: NotedClip
    norm: float | Note | None
    columns: tuple[int, ...]
    event: int

    def moved(self, old: OptimizerParameters, new: OptimizerParameters) -> SeenClip:
        """The same call, among the columns of a new list of parameters."""
        ids = [id(old.parameters[column]) for column in (*self.columns, *self.noted.repeated)]
        given = new.given(tuple(ids))
        noted = self.noted._replace(columns=given.places, repeated=given.repeated)
        return SeenClip(noted, self.norm, given.columns, self.event)


@dataclass(slots=True)
class PendingStep:
    """Everything known of one step when it was taken.

    Attributes:
        own: what its columns are.
        number: steps of the optimizer so far, this one included.
        time: Unix time in seconds.
        consumed: whose gradients it consumed, and which of them were measured before clipping.
        before: norms before clipping, float64 ``[columns]``, as far as the host has them.
        after: norms consumed.
        backward_passes: passes that wrote one of them since the step before.
        clips: the clip calls seen.
        norms: what is still on devices; None where nothing is.
        loss_scale: the GradScaler's factor.
        still_scaled_by: what the gradients were still multiplied by when they were measured.
        found_inf: above 0 where a fused optimizer has left the update out.
        skipped: the step was not taken at all.
        left_out: parameters of its modules that get a gradient and that no tracked optimizer holds.
        clipped_instead: the optimizer whose gradients were clipped for the step before.
        lost_passes: backward passes of which nothing was left at the step.
    """

    own: RowForm
    number: int
    time: float
    consumed: Consumed
    before: bytes
    after: bytes
    backward_passes: int
    clips: Sequence[SeenClip]
    norms: PendingNorms | None = None
    loss_scale: float | Note | None = None
    still_scaled_by: float | Note | None = None
    found_inf: float | Note | None = None
    skipped: bool = False
    left_out: Mapping[str, tuple[str, ...]] | None = None
    clipped_instead: str | None = None
    lost_passes: int = 0

    def ready(self) -> bool:
        """Whether all of its numbers are on the host; asked, not waited for."""
        return self.norms is None or self.norms.ready()

    def wait(self) -> None:
        """Wait for them: only for somebody who reads."""
        if self.norms is not None:
            self.norms.wait()

    def landed(self) -> LandedStep:
        """Its numbers, once they are ready."""
        if self._is_plain():
            clips = tuple(clip.noted for clip in self.clips)
            row = StepRow(self.number, self.time, self.consumed.facts, self.backward_passes, clips)
            return LandedStep(self.own, row, self.before, self.after)
        return self._landed_slowly()

    def _is_plain(self) -> bool:
        """Nothing is to be worked out: what every step in the memory of the CPU without a scaler is."""
        return (
            self.norms is None
            and self.consumed.covered is None
            and not self.skipped
            and self.loss_scale is None
            and self.still_scaled_by is None
            and self.found_inf is None
            and self.left_out is None
            and self.clipped_instead is None
            and not self.lost_passes
        )

    def _landed_slowly(self) -> LandedStep:
        before, after = (np.frombuffer(side).copy() for side in (self.before, self.after))
        if self.norms is not None:
            self.norms.fill(BEFORE, before)
            self.norms.fill(AFTER, after)
        covered = self.consumed.covered
        if covered is not None:
            before = np.where(covered, before, after)
        scale = self._number(self.still_scaled_by)
        if scale is not None:
            before, after = before / scale, after / scale
        skipped = self.skipped or bool(self._number(self.found_inf))
        if skipped:
            after = np.full_like(after, np.nan)
        loss_scale = self._number(self.loss_scale)
        row = StepRow(
            self.number,
            self.time,
            self.consumed.facts,
            self.backward_passes,
            tuple(clip.noted._replace(norm_returned=self._number(clip.norm)) for clip in self.clips),
            skipped,
            scale if loss_scale is None else loss_scale,
            self.left_out,
            self.clipped_instead,
            self.lost_passes,
        )
        return LandedStep(self.own, row, before.tobytes(), after.tobytes())

    def _number(self, noted: float | Note | None) -> float | None:
        if not isinstance(noted, Note):
            return noted
        return None if self.norms is None else self.norms.number(noted)


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

    def side(self, side: int) -> FloatArray:
        """The norms of one side, to be changed in place."""
        changed = bytearray(self.before if side == BEFORE else self.after)
        if side == BEFORE:
            self.before = changed
        else:
            self.after = changed
        return np.frombuffer(changed)


def block_of(steps: Sequence[LandedStep]) -> Block:
    """Steps of one optimizer under one list of parameters, as a block."""
    own = steps[0].own
    shape = len(steps), len(own.layout.names)
    before = np.frombuffer(b"".join([step.before for step in steps])).reshape(shape)
    after = np.frombuffer(b"".join([step.after for step in steps])).reshape(shape)
    return Block(own.layout, [step.row for step in steps], before, after)
