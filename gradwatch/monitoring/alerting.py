"""The one table of alerts: rules for Prometheus, Alertmanager's inhibition and the docs are made from it."""

from __future__ import annotations

from typing import NamedTuple

from gradwatch.monitoring.metrics import full_name

__all__ = ["RELAY", "RULES", "AlertingRule"]

# The rule that relays what the run itself says.
RELAY = "GradwatchAlert"


class AlertingRule(NamedTuple):
    """A rule of Prometheus.

    Attributes:
        name: of the alert.
        expression: PromQL, with the metrics by their names in the table, in braces.
        lasting: how long it must hold before the alert fires.
        severity: ``"critical"``, ``"warning"`` or ``"info"``; may be a template.
        summary: what is so, in one sentence; a template.
        description: what it means and what to do.
        said_by: the rule of the run itself that says the same, with a cause, and so mutes this one; None where
            a run cannot tell.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    description: str
    said_by: str | None = None


_OF_RUN = "job, instance, run, rank"
_OF_ALERT = f"{_OF_RUN}, optimizer, rule, severity, module, incident, role"


def _in_the_words_of_the_run() -> str:
    """A template for what the run says of its alert; a label that would change with it would begin a new alert."""
    labels = _OF_ALERT.split(", ")
    matchers = ",".join(f"{label}=%q" for label in labels)
    values = " ".join(f"$labels.{label}" for label in labels)
    query = f"printf `{full_name('alert_info')}{{{matchers}}}` {values} | query"
    return f'{{{{ range {query} }}}}{{{{ label "words" . }}}} {{{{ end }}}}'


RULES = (
    AlertingRule(
        "NonFiniteGradients",
        # A step that a GradScaler skipped has done no harm, and is usual while the scale settles.
        "increase({nonfinite_steps}[5m]) > increase({skipped_steps}[5m])"
        " or ({nonfinite_steps} > {skipped_steps} unless {nonfinite_steps} offset 5m)",
        "0s",
        "critical",
        "Gradients of {{ $labels.optimizer }} in {{ $labels.run }} held NaN or Inf.",
        "In the last five minutes more steps had NaN or Inf than were skipped: the optimizer has consumed some, "
        "and its weights are likely lost. Stop the run and go back to a checkpoint.",
        "nonfinite",
    ),
    AlertingRule(
        "ExplodingGradients",
        "{grad_norm_before_window_max} > 100 * histogram_quantile(0.5,"
        " increase({grad_norm_before_distribution}_bucket[1h]))"
        " and increase({grad_norm_before_distribution}_count[1h]) > 20",
        "0s",
        "critical",
        "The gradient norm of {{ $labels.optimizer }} in {{ $labels.run }} reached {{ $value | humanize }}.",
        "That is over 100 times the median of the last hour, before clipping. Look at the batch and the loss of "
        "that minute; clip, or lower the learning rate.",
        "explosion",
    ),
    AlertingRule(
        "ZeroGradients",
        # A missing gradient has no norm; the alert of the run itself knows of it.
        "{module_grad_norm_after} == 0"
        ' or on (job, instance, run, rank, optimizer, module) {alert_active}{{rule="zero"}} == 1',
        "1m",
        "critical",
        "The gradient of {{ $labels.module }} under {{ $labels.optimizer }} in {{ $labels.run }} is zero.",
        "It has been exactly zero, or missing, for a minute: that module does not learn. Look for a detached or "
        "saturated path between it and the loss.",
        "zero",
    ),
    AlertingRule(
        "VanishingGradients",
        f"({{module_grad_norm_after}} > 0) < 1e-7 and on ({_OF_RUN}, optimizer) {{grad_norm_after}} >= 1e-7",
        "5m",
        "warning",
        "The gradient of {{ $labels.module }} under {{ $labels.optimizer }} in {{ $labels.run }} has vanished.",
        "Its norm is {{ $value | humanize }} while the optimizer's is not small: the module hardly learns. Look "
        "at the activations between it and the loss.",
        "vanishing",
    ),
    AlertingRule(
        "ClippingAlways",
        "increase({clipped_steps}[10m]) / (increase({steps}[10m]) > 0) > 0.95",
        "10m",
        "warning",
        "Nearly every step of {{ $labels.optimizer }} in {{ $labels.run }} is clipped.",
        "More than 95 % of the steps were above the limit for ten minutes: clipping sets the update's length, "
        "and hides what the gradients do. Raise the limit, or lower the learning rate in its place.",
        "clip-saturated",
    ),
    AlertingRule(
        "ClippingBroken",
        f"max by ({_OF_RUN}, optimizer) ({{alert_info}}{{{{rule='clip-broken',severity='critical'}}}} == 1)",
        "0s",
        "critical",
        "The optimizer {{ $labels.optimizer }} in {{ $labels.run }} consumed more than its limit of clipping.",
        "Clipping ran before the last backward, on other parameters, or gradients were changed after it. Call it "
        "right before the optimizer's step.",
        "clip-broken",
    ),
    AlertingRule(
        "TrainingStalled",
        "time() - {last_step_timestamp_seconds} > 300 and on (job, instance, run, rank) {training_active} == 1",
        "0s",
        "warning",
        "The optimizer {{ $labels.optimizer }} in {{ $labels.run }} has not stepped for five minutes.",
        "The process answers, but trains nothing: it may wait for data, for another rank, or for an evaluation.",
    ),
    AlertingRule(
        "RunVanished",
        # The target answers and this run is not in what it says; where it does not answer, see ExporterDown.
        "max by (job, instance, run, rank) (max_over_time({training_active}[15m]))"
        " unless on (job, instance, run, rank) {training_active}"
        " and on (job, instance) up == 1",
        "1m",
        "info",
        "The run {{ $labels.run }} is gone from {{ $labels.instance }}, and another has taken its place.",
        "It has ended or died and was started again. Where that repeats, the run crashes as it begins.",
    ),
    AlertingRule(
        "ExporterDown",
        # Only where there just was a run: a machine on which nothing trains is no fault.
        "up == 0 and on (job, instance) max_over_time({training_active}[15m])",
        "2m",
        "warning",
        "The run on {{ $labels.instance }} can no longer be scraped.",
        "It trained minutes ago and has not answered for two: it has ended, died or hangs. A run that ends as it "
        "should looks the same from here; the alert is over in a quarter of an hour.",
    ),
    AlertingRule(
        RELAY,
        # It is told of for five minutes after its end, so that none falls between two scrapes; the words change.
        # A Pushgateway shows for ever what a run that is over has left there: that is new for five minutes.
        f"max by ({_OF_ALERT}) ({{alert_info}} == 1 or {{alert_info}} unless {{alert_info}} offset 5m)",
        "0s",
        "{{ $labels.severity }}",
        "{{ $labels.rule }} at {{ with $labels.module }}{{ . }} of {{ end }}{{ $labels.optimizer }}"
        " in {{ $labels.run }}.",
        _in_the_words_of_the_run() + "Said by the run itself, now or in the last five minutes.",
    ),
)
