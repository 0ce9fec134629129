"""The one table of metrics: the exporter, the alerting rules and their tests are made from it."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["METRICS", "MOST_MODULES", "MOST_NAMED", "PREFIX", "Metric", "full_name", "with_names"]

PREFIX = "gradwatch_"
RUN = ("run", "rank")
OPTIMIZER = (*RUN, "optimizer")
MODULE = (*OPTIMIZER, "module")

# Module names come from users and their number has no bound; series must have one.
MOST_MODULES = 200

# So many more, of each optimizer, may be named by alerts: verdicts are finer than the lines of a report.
MOST_NAMED = 50

Kind = Literal["gauge", "counter", "histogram"]


class Metric(NamedTuple):
    """A metric: its name without the prefix (and, of a counter, without ``_total``), kind, labels and help."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("build_info", "gauge", ("version", "python", "torch"), "Versions of what runs; always 1."),
        Metric("run_info", "gauge", RUN, "The run that is tracked; always 1."),
        Metric("training_active", "gauge", RUN, "1 while the run is tracked."),
        Metric(
            "last_step_timestamp_seconds",
            "gauge",
            OPTIMIZER,
            "Unix time of the newest step; of the run's begin where there is none yet.",
        ),
        Metric("steps", "counter", OPTIMIZER, "Steps measured."),
        Metric("clipped_steps", "counter", OPTIMIZER, "Steps whose norm was above the limit of clipping."),
        Metric("skipped_steps", "counter", OPTIMIZER, "Steps that the optimizer did not apply."),
        Metric("nonfinite_steps", "counter", OPTIMIZER, "Steps with NaN or Inf in a gradient."),
        Metric("grad_norm_before", "gauge", OPTIMIZER, "L2 norm before clipping, newest step."),
        Metric("grad_norm_after", "gauge", OPTIMIZER, "L2 norm that the optimizer consumed, newest step."),
        Metric("clip_ratio", "gauge", OPTIMIZER, "Norm after clipping over norm before, newest step."),
        Metric("clip_max_norm", "gauge", OPTIMIZER, "Tightest limit of clipping, NaN where there was none."),
        Metric("grad_norm_before_window_max", "gauge", OPTIMIZER, "Largest finite norm before, last 60 s."),
        Metric("grad_norm_before_distribution", "histogram", OPTIMIZER, "Finite norms before clipping."),
        Metric("module_grad_norm_before", "gauge", MODULE, "L2 norm of the module before clipping."),
        Metric("module_grad_norm_after", "gauge", MODULE, "L2 norm of the module that was consumed."),
        Metric("module_nonfinite_steps", "counter", MODULE, "Steps with NaN or Inf in the module."),
        Metric("alert_active", "gauge", (*OPTIMIZER, "rule", "severity", "module"), "1 while the alert fires."),
        Metric(
            "alert_info",
            "gauge",
            (*OPTIMIZER, "rule", "severity", "module", "incident", "role", "words"),
            "An alert's words and incident: 1 while it fires and five minutes longer, 0 when the run is over.",
        ),
        Metric("alerts", "counter", (*OPTIMIZER, "rule", "severity"), "Alerts that have fired."),
        Metric("overhead_seconds", "counter", RUN, "Time spent inside gradwatch in the training threads."),
        Metric("dropped_records", "counter", RUN, "Records that a sink missed, in all sinks together."),
        Metric("sink_errors", "counter", (*RUN, "sink"), "Failures of a sink."),
        Metric("modules_dropped", "gauge", RUN, f"Modules left out of the metrics, beyond {MOST_MODULES}."),
    )
}


def full_name(name: str) -> str:
    """The name of a metric's series, as a query writes it.

    Raises:
        KeyError: the table has no such metric.
    """
    return PREFIX + name + ("_total" if METRICS[name].kind == "counter" else "")


def with_names(expression: str) -> str:
    """PromQL with full names, from one that has those of the table in braces; braces of PromQL's own are doubled.

    Raises:
        KeyError: the table has no such metric.
    """
    return expression.format_map(_FullNames())


class _FullNames(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return full_name(key)
