"""From the state of the optimizers to the metric families of a scrape, by the one table of metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gradwatch.monitoring.metrics import METRICS, PREFIX
from gradwatch.records import Health, RunInfo
from gradwatch.sinks.board import AlertBoard
from gradwatch.sinks.exposition import BOUNDS, Newest, OptimizerState
from gradwatch.sinks.labels import label

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["families"]

_Samples = Iterable[tuple[tuple[str, ...], float]]
_States = Sequence[tuple[tuple[str, ...], OptimizerState]]


def families(
    run: RunInfo,
    health: Health,
    states: Mapping[str, OptimizerState],
    modules_dropped: int,
    board: AlertBoard,
    now: float,
) -> list[Metric]:
    """Everything that one scrape shows at Unix time ``now``; nothing in it refers to the state any more."""
    labelled = [((run.run, str(run.rank), name), state) for name, state in states.items()]
    return [
        *_run_families(run, health, modules_dropped),
        *_counter_families(labelled),
        *_value_families(labelled, now),
        _histogram(labelled),
        *_module_families(labelled),
        *_alert_families((run.run, str(run.rank)), board, now),
    ]


def _run_families(run: RunInfo, health: Health, modules_dropped: int) -> Iterator[Metric]:
    base = (run.run, str(run.rank))
    yield _family("build_info", [((run.gradwatch, run.python, run.torch), 1.0)])
    yield _family("run_info", [(base, 1.0)])
    yield _family("training_active", [(base, 1.0)])
    yield _family("overhead_seconds", [(base, health.overhead_seconds)])
    yield _family("dropped_records", [(base, health.dropped_records)])
    yield _family("modules_dropped", [(base, modules_dropped)])
    yield _family("sink_errors", [((*base, sink), count) for sink, count in health.sink_errors.items()])


def _counter_families(states: _States) -> Iterator[Metric]:
    yield _family("steps", [(labels, state.steps) for labels, state in states])
    yield _family("clipped_steps", [(labels, state.clipped) for labels, state in states])
    yield _family("skipped_steps", [(labels, state.skipped) for labels, state in states])
    yield _family("nonfinite_steps", [(labels, state.nonfinite) for labels, state in states])


def _value_families(states: _States, now: float) -> Iterator[Metric]:
    """Newest values: NaN before the first step, for a norm that nobody has measured is not 0."""
    steps = [(labels, state.last_step_time) for labels, state in states]
    yield _family("last_step_timestamp_seconds", steps)
    for name, field in (
        ("grad_norm_before", "norm_before"),
        ("grad_norm_after", "norm_after"),
        ("clip_ratio", "clip_ratio"),
        ("clip_max_norm", "max_norm"),
    ):
        yield _family(name, [(labels, _newest(state.newest, field)) for labels, state in states])
    yield _family("grad_norm_before_window_max", [(labels, state.window.at(now)) for labels, state in states])


def _newest(newest: Newest | None, field: str) -> float:
    value: float | None = getattr(newest, field, None)
    return math.nan if value is None else value


def _histogram(states: _States) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    metric = METRICS["grad_norm_before_distribution"]
    family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
    for labels, state in states:
        total = 0
        buckets = []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), state.buckets.tolist(), strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(list(map(label, labels)), buckets, state.finite_sum)
    return family


def _module_families(states: _States) -> Iterator[Metric]:
    newest = [(labels, state, state.newest) for labels, state in states]
    for field in ("norm_before", "norm_after"):
        samples = [
            ((*labels, name), _module_norm(record, name, field))
            for labels, state, record in newest
            for name in state.modules
        ]
        yield _family(f"module_grad_{field}", samples)
    counts = [((*labels, n), state.module_nonfinite[n]) for labels, state in states for n in state.modules]
    yield _family("module_nonfinite_steps", counts)


def _module_norm(newest: Newest | None, module: str, field: str) -> float:
    if newest is None or module not in newest.modules:
        return math.nan
    norm: float = getattr(newest.modules[module], field)
    return norm


def _alert_families(base: tuple[str, str], board: AlertBoard, now: float) -> Iterator[Metric]:
    yield _family("alert_active", [((*base, *place), on) for place, on in board.active()])
    yield _family("alert_info", [((*base, *place, *told), 1.0) for place, told in board.told(now)])
    yield _family("alerts", [((*base, *kind), count) for kind, count in board.fired.items()])


def _family(name: str, samples: _Samples) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    metric = METRICS[name]
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family: Metric = make(PREFIX + name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(list(map(label, labels)), value)  # type: ignore[attr-defined]
    return family
