"""The vocabulary of gradwatch: what is measured, what is said about it, and nothing that does either.

Every type here is a frozen value of the standard library alone, so that rules can be tested with made-up
records and sinks with made-up alerts.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gradwatch.alerts import Alert, Cause, Incident, Severity, State

__all__ = [
    "OUTSIDE",
    "Alert",
    "Cause",
    "ClipCall",
    "GroupNorms",
    "Health",
    "Incident",
    "NormTable",
    "RankNorms",
    "RunInfo",
    "Severity",
    "Sink",
    "State",
    "StepRecord",
]

# Under this in ``StepRecord.left_out`` are parameters that no module holds.
OUTSIDE = "(outside every module)"

SCHEMA_VERSION = 1


class GroupNorms(NamedTuple):
    """The L2 norms of one module's or one parameter's gradient.

    NaN where the gradient holds a NaN, and where there is no gradient at all: a missing gradient is named in
    ``StepRecord.missing`` and is never 0.0.
    """

    norm_before: float
    norm_after: float


class NormTable(Mapping[str, GroupNorms]):
    """Norms by name, held as two arrays of 8 bytes a norm; a ``GroupNorms`` is made when it is asked for.

    A record of a model with thousands of parameters stays small this way, and costs nothing to make.

    Args:
        places: name -> index into both arrays, shared between the records of one optimizer.
        before: norms before clipping.
        after: norms that the optimizer consumed.
    """

    __slots__ = ("_after", "_before", "_places")

    def __init__(self, places: Mapping[str, int], before: array[float], after: array[float]) -> None:
        self._places = places
        self._before = before
        self._after = after

    def __getitem__(self, name: str) -> GroupNorms:
        place = self._places[name]
        return GroupNorms(self._before[place], self._after[place])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def pairs(self) -> Iterator[tuple[float, float]]:
        """The norms before and after clipping, in the order of the names; quicker than one by one."""
        return zip(self._before, self._after, strict=True)

    def items(self) -> ItemsView[str, GroupNorms]:
        """Names and norms; all of them are there much faster than one after another."""
        return _Items(self)

    def values(self) -> ValuesView[GroupNorms]:
        """The norms, in the order of the names."""
        return _Values(self)

    def in_order(self) -> Iterator[GroupNorms]:
        """The norms, in the order of the arrays, which is that of the names."""
        return map(GroupNorms, self._before, self._after)

    def __repr__(self) -> str:
        return f"NormTable({dict(self)!r})"


class _Items(ItemsView[str, GroupNorms]):
    _mapping: NormTable

    def __iter__(self) -> Iterator[tuple[str, GroupNorms]]:
        return zip(self._mapping, self._mapping.in_order(), strict=True)


class _Values(ValuesView[GroupNorms]):
    _mapping: NormTable

    def __iter__(self) -> Iterator[GroupNorms]:
        return self._mapping.in_order()


@dataclass(frozen=True, slots=True)
class ClipCall:
    """One call of a clipping function, as it was seen.

    Attributes:
        function: name of the torch function, such as ``"clip_grad_norm_"``.
        limit: ``max_norm`` or ``clip_value`` as it was passed; infinity stays infinity here.
        norm_type: the p of the p-norm; None for clipping by value.
        norm_returned: the norm that torch computed, None where the function returns none.
        scope_before: exact L2 norm, before the call, of the tracked gradients that the call was given; None where
            it was given none.
        scope_after: exact L2 norm of the same gradients when the optimizer consumed them.
        repeated: parameters that it was given more than once: torch counts and scales each as often.
        rounding: machine epsilon of the coarsest type among them, such as 0.0078 for bfloat16.
        norm_given: the total norm that a call was given which computes none itself.
    """

    function: str
    limit: float
    norm_type: float | None = None
    norm_returned: float | None = None
    scope_before: float | None = None
    scope_after: float | None = None
    repeated: tuple[str, ...] = ()
    rounding: float = 0.0
    norm_given: float | None = None


class RankNorms(NamedTuple):
    """The norms that two data-parallel ranks consumed at one step.

    Attributes:
        step: the step, an earlier one than that of the record.
        rank: the other rank.
        here: the norm on this rank.
        there: the norm on the other.
        rounding: machine epsilon of the coarsest type among the gradients.
    """

    step: int
    rank: int
    here: float
    there: float
    rounding: float


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step of one optimizer did, also a step that was skipped.

    Norms are exact L2 norms in float64. NaN means that a gradient held NaN or that no gradient was there.

    Attributes:
        optimizer: name of the optimizer.
        step: steps of this optimizer since tracking began, from 1.
        time: Unix time in seconds.
        norm_before: global norm before any clipping: unscaled and accumulated.
        norm_after: global norm of what the optimizer consumed; NaN where nothing was consumed.
        clip_ratio: ``norm_after / norm_before``; 1.0 where both are 0.
        max_norm: the tightest finite limit of a norm-clipping call in this step; None where there was none.
        clipped: a limit was in force and the norm was above it.
        clips: the clipping calls seen, in order.
        modules: norms by the lines of the report.
        owners: norms of each module that owns parameters itself, by its path.
        parameters: norms by parameter name.
        backward_passes: backward passes since this optimizer's last step that wrote one of its gradients.
        skipped: the optimizer did not apply the update.
        loss_scale: the GradScaler's factor, None where none was used.
        loop_step: the loop's own step, as ``Watch.loop_step`` gave it; None where it gave none.
        missing: names of parameters whose ``.grad`` is None.
        nonfinite: names of parameters whose gradient holds NaN or Inf.
        missing_modules: names of modules none of whose parameters has a gradient.
        missing_owners: the same of the modules that own parameters themselves.
        unwritten: parameters whose gradient no backward pass has written since the last step that was measured.
        stale: of these, those that the step consumed just as an earlier step of this optimizer had left them.
        leaked: parameters whose gradient held, besides what was written since, what an earlier step had used.
        frozen: parameters that require no gradient.
        left_out: by module, its parameters that get a gradient and that no tracked optimizer holds.
        missed_by_clip: parameters that a backward pass has written after the last clip call that was given them.
        clipped_between: parameters whose gradient was clipped and then added to by another backward pass.
        clipped_instead: the optimizer whose gradients were clipped between the backward pass and the step before,
            which was not clipped itself, and that no step has consumed.
        compared: what a comparison with another data-parallel rank has shown by now; None at most steps.
        lost_passes: of the backward passes, those whose gradients were erased before the step used any, or some of
            them; 0 where the weights moved in between, where they come from other lines of the program than the
            one that is left, or where the loop may mean it.
        lost: parameters that these passes have written and only later ones have written anew; none where that is
            all that any pass has written.
    """

    optimizer: str
    step: int
    time: float
    norm_before: float
    norm_after: float
    clip_ratio: float
    max_norm: float | None = None
    clipped: bool = False
    clips: tuple[ClipCall, ...] = ()
    modules: Mapping[str, GroupNorms] = field(default_factory=dict)
    owners: Mapping[str, GroupNorms] = field(default_factory=dict)
    parameters: Mapping[str, GroupNorms] = field(default_factory=dict)
    backward_passes: int = 1
    skipped: bool = False
    loss_scale: float | None = None
    loop_step: int | None = None
    missing: tuple[str, ...] = ()
    nonfinite: tuple[str, ...] = ()
    missing_modules: tuple[str, ...] = ()
    missing_owners: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    leaked: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missed_by_clip: tuple[str, ...] = ()
    clipped_between: tuple[str, ...] = ()
    clipped_instead: str | None = None
    lost_passes: int = 0
    compared: RankNorms | None = None
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a sink is told once, before the first record.

    Attributes:
        run: name of the run, unique enough to tell two runs on one machine apart.
        rank: rank of this process, 0 where there is one process.
        time: Unix time in seconds at which tracking began.
        python: version of Python.
        torch: version of torch.
        gradwatch: version of gradwatch.
        optimizers: names of the optimizers, in order.
        modules: names of the modules reported under each optimizer.
        rules: the rules that judge the run, and the severities that their alerts may have.
        schema: version of the record's schema.
    """

    run: str
    rank: int
    time: float
    python: str
    torch: str
    gradwatch: str
    optimizers: tuple[str, ...]
    modules: Mapping[str, tuple[str, ...]]
    rules: Mapping[str, tuple[Severity, ...]] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Health:
    """How gradwatch itself is doing.

    Attributes:
        overhead_seconds: time spent inside gradwatch on the training thread, in seconds.
        dropped_records: records that are missing in a sink because its queue was full, in all sinks together, and
            steps that have no record.
        sink_errors: failures by sink name.
        internal_errors: errors inside gradwatch that were kept from the training loop.
        kernel: what measures gradients in CPU memory: ``"native avx512"``, ``"native avx512+avx2"`` where the
            processor reads float32 faster by AVX2, ``"native avx2"``, ``"native plain"`` or ``"pure torch"``.
        dropped_by_sink: records that are missing in each sink, by its name.
        forgotten_records: records that ``track(history=...)`` asks for and that ``watch.history`` does not hold,
            since they would take up more than 64 MiB.
    """

    overhead_seconds: float = 0.0
    dropped_records: int = 0
    sink_errors: Mapping[str, int] = field(default_factory=dict)
    internal_errors: int = 0
    kernel: str = ""
    dropped_by_sink: Mapping[str, int] = field(default_factory=dict)
    forgotten_records: int = 0


class Sink(Protocol):
    """Where records and alerts go. Each sink is called from a thread of its own, never from the training loop.

    A sink may also have ``open(run: RunInfo, health: Callable[[], Health])``, called once in the training
    thread before the first ``write``; an error raised there reaches the caller of ``track``.
    """

    def write(self, records: Sequence[StepRecord], alerts: Sequence[Alert]) -> None:
        """Take what has come since the last call, oldest first."""

    def close(self) -> None:
        """Write what is left and let go of every resource."""


def clip_ratio(norm_before: float, norm_after: float) -> float:
    """``norm_after / norm_before``: 1.0 where both are 0, NaN where either is not a number or both are Inf."""
    if norm_before == 0.0:
        return 1.0 if norm_after == 0.0 else math.inf if norm_after > 0.0 else math.nan
    if math.isinf(norm_before) and math.isinf(norm_after):
        return math.nan
    return norm_after / norm_before
