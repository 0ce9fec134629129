"""The one table of what the Grafana dashboard shows, in the names of the table of metrics."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["PANELS", "SHOWN_OPTIMIZERS", "VARIABLES", "Panel"]

Kind = Literal["timeseries", "stat", "table", "heatmap", "state-timeline"]

_RUNS = '{{run=~"$run"}}'
SHOWN_OPTIMIZERS = '{{run=~"$run",optimizer=~"$optimizer"}}'
_MODULES = '{{run=~"$run",optimizer=~"$optimizer",module=~"$module"}}'

# Variables of the dashboard and what their values are read from.
VARIABLES = {
    "run": "label_values({run_info}, run)",
    "optimizer": 'label_values({steps}{{run=~"$run"}}, optimizer)',
    "module": "label_values({module_grad_norm_before}" + SHOWN_OPTIMIZERS + ", module)",
}


class Panel(NamedTuple):
    """A panel.

    Attributes:
        title: what it shows.
        kind: Grafana's name of its kind.
        queries: pairs of PromQL, with the names of the table in braces, and the legend of its series.
        description: how it is read.
        unit: Grafana's name of the unit.
        logarithmic: norms are read in decades.
        width: of the 24 columns.
    """

    title: str
    kind: Kind
    queries: tuple[tuple[str, str], ...]
    description: str
    unit: str = "short"
    logarithmic: bool = False
    width: int = 12


def _norm(title: str, queries: tuple[tuple[str, str], ...], description: str) -> Panel:
    return Panel(title, "timeseries", queries, description, unit="sci", logarithmic=True)


def _stat(title: str, expression: str, legend: str, description: str, unit: str = "short") -> Panel:
    return Panel(title, "stat", ((expression, legend),), description, unit=unit, width=6)


_PER_RATE = "[$__rate_interval]"
_WHO = "{{run}} {{optimizer}}"

PANELS = (
    _stat(
        "Alerts firing",
        f"sum({{alert_active}}{SHOWN_OPTIMIZERS})",
        "alerts",
        "What fires now; the table beside it has the words.",
    ),
    _stat("Runs", f"sum by (run) ({{training_active}}{_RUNS})", "{{run}}", "Ranks of each run that answer."),
    _stat(
        "Since the last step",
        f"time() - max by (run, optimizer) ({{last_step_timestamp_seconds}}{SHOWN_OPTIMIZERS})",
        _WHO,
        "A run that hangs still answers: this is how long it has trained nothing.",
        "s",
    ),
    _stat(
        "Steps a second",
        f"sum by (run, optimizer) (rate({{steps}}{SHOWN_OPTIMIZERS}{_PER_RATE}))",
        _WHO,
        "Of each optimizer, over all ranks.",
    ),
    Panel(
        "Incidents, in the words of the runs",
        "table",
        ((f"{{alert_info}}{SHOWN_OPTIMIZERS}", ""),),
        "Alerts that fire or were over less than five minutes ago. Those of one incident have one root.",
        width=24,
    ),
    _norm(
        "Norm before clipping",
        (
            (f"{{grad_norm_before_window_max}}{SHOWN_OPTIMIZERS}", f"{_WHO} max of 60 s"),
            (f"{{grad_norm_before}}{SHOWN_OPTIMIZERS}", f"{_WHO} newest"),
            (f"{{clip_max_norm}}{SHOWN_OPTIMIZERS}", f"{_WHO} limit"),
        ),
        "The largest of the last minute loses no spike between two scrapes; the newest is one step of many.",
    ),
    _norm(
        "Norm that was consumed",
        ((f"{{grad_norm_after}}{SHOWN_OPTIMIZERS}", _WHO),),
        "After clipping, as the optimizer had it at the newest step.",
    ),
    Panel(
        "Norms before clipping, all steps",
        "heatmap",
        (
            (
                f"sum by (le) (increase({{grad_norm_before_distribution}}_bucket{SHOWN_OPTIMIZERS}{_PER_RATE}))",
                "{{le}}",
            ),
        ),
        "Every finite norm is in it, whatever the scrape interval.",
    ),
    _norm(
        "Median and 99th percentile",
        tuple(
            (
                f"histogram_quantile({quantile}, sum by (le, run, optimizer)"
                f" (increase({{grad_norm_before_distribution}}_bucket{SHOWN_OPTIMIZERS}{_PER_RATE})))",
                f"{_WHO} {quantile}",
            )
            for quantile in (0.5, 0.99)
        ),
        "To half a decade, which is how wide a bucket is.",
    ),
    Panel(
        "Share of steps clipped",
        "timeseries",
        (
            (
                f"sum by (run, optimizer) (rate({{clipped_steps}}{SHOWN_OPTIMIZERS}{_PER_RATE}))"
                f" / sum by (run, optimizer) (rate({{steps}}{SHOWN_OPTIMIZERS}{_PER_RATE}))",
                _WHO,
            ),
        ),
        "At 100 % clipping sets the length of every update, and hides what the gradients do.",
        unit="percentunit",
    ),
    Panel(
        "Norm after over norm before",
        "timeseries",
        ((f"{{clip_ratio}}{SHOWN_OPTIMIZERS}", _WHO),),
        "What clipping left at the newest step.",
        unit="percentunit",
    ),
    Panel(
        "Steps not finite, steps skipped",
        "timeseries",
        (
            (
                f"sum by (run, optimizer) (increase({{nonfinite_steps}}{SHOWN_OPTIMIZERS}[1m]))",
                f"{_WHO} not finite",
            ),
            (f"sum by (run, optimizer) (increase({{skipped_steps}}{SHOWN_OPTIMIZERS}[1m]))", f"{_WHO} skipped"),
        ),
        "A minute. A step that a GradScaler skipped is both; one that is not finite and was not skipped did harm.",
    ),
    Panel(
        "Steps not finite, by module",
        "timeseries",
        ((f"sum by (run, optimizer, module) (increase({{module_nonfinite_steps}}{_MODULES}[1m]))", "{{module}}"),),
        "Where NaN or Inf was, a minute.",
    ),
    _norm(
        "Modules before clipping",
        ((f"{{module_grad_norm_before}}{_MODULES}", "{{optimizer}} {{module}}"),),
        "A scale of decades has no 0: a module whose line ends is silent.",
    ),
    _norm(
        "Modules as consumed",
        ((f"{{module_grad_norm_after}}{_MODULES}", "{{optimizer}} {{module}}"),),
        "A module far below the others hardly learns.",
    ),
    Panel(
        "Alerts over time",
        "state-timeline",
        (
            (
                f"max by (run, optimizer, rule, module) ({{alert_active}}{SHOWN_OPTIMIZERS}) > 0",
                "{{rule}} {{optimizer}} {{module}}",
            ),
        ),
        "What is shorter than a scrape is in the counts beside this.",
    ),
    Panel(
        "Alerts that have fired",
        "timeseries",
        ((f"sum by (run, rule) (increase({{alerts}}{SHOWN_OPTIMIZERS}[$__range]))", "{{run}} {{rule}}"),),
        "In the range of time that is shown.",
    ),
    Panel(
        "gradwatch itself: time",
        "timeseries",
        ((f"rate({{overhead_seconds}}{_RUNS}{_PER_RATE})", "{{run}} {{rank}}"),),
        "The share of the training threads' time that is spent in gradwatch.",
        unit="percentunit",
    ),
    Panel(
        "gradwatch itself: losses",
        "timeseries",
        (
            (f"{{dropped_records}}{_RUNS}", "{{run}} records dropped"),
            (f"{{sink_errors}}{_RUNS}", "{{run}} errors of {{sink}}"),
            (f"{{modules_dropped}}{_RUNS}", "{{run}} modules without series"),
        ),
        "All should be 0.",
    ),
    Panel("Versions", "table", (("{build_info}", ""),), "Of what runs.", width=24),
)
