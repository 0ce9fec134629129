"""The alerting rules for a Prometheus server, written from the table of metrics."""

from __future__ import annotations

from typing import NamedTuple

from gradwatch.monitoring.metrics import full_name

__all__ = ["RULES", "AlertingRule", "alerting_rules"]


class AlertingRule(NamedTuple):
    """A rule of Prometheus.

    Attributes:
        name: of the alert.
        expression: PromQL, with the metrics by their names in the table, in braces.
        lasting: how long it must hold before the alert fires.
        severity: ``"critical"``, ``"warning"`` or ``"info"``; may be a template.
        summary: what is so, in one sentence; a template.
        description: what it means and what to do.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    description: str


_OF_OPTIMIZER = "on (job, instance, run, rank, optimizer)"
_OF_RULE = "on (job, instance, run, rank, optimizer, rule, severity)"


def _alert_within_5m(match: str = "") -> str:
    """An alert of the run, however short: a gauge alone would miss what begins and ends between two scrapes."""
    counter = "{alerts}" + match
    # A counter that is first scraped above 0 has no increase(): what has no past is held against 0.
    fired = f"(increase({counter}[5m]) > 0 or ({counter} > 0 unless {counter} offset 5m))"
    return f"{{alert_active}}{match} == 1 or {_OF_RULE} {fired}"


def _in_the_words_of_the_run() -> str:
    """A template for what the run says of its alert; a label that would change with it would begin a new alert."""
    known = ("job", "instance", "run", "rank", "optimizer", "rule", "severity")
    matchers = ",".join(f"{label}=%q" for label in known)
    values = " ".join(f"$labels.{label}" for label in known)
    # The counter knows no module: then the words are those of all modules.
    words = (
        '{{ if or (not $labels.module) (eq $labels.module (label "module" .)) }}{{ label "words" . }} {{ end }}'
    )
    return (
        f"{{{{ range printf `{full_name('alert_info')}{{{matchers}}}` {values} | query }}}}{words}{{{{ end }}}}"
        "Said by the run itself, now or in the last five minutes."
    )


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
    ),
    AlertingRule(
        "VanishingGradients",
        f"({{module_grad_norm_after}} > 0) < 1e-7 and {_OF_OPTIMIZER} {{grad_norm_after}} >= 1e-7",
        "5m",
        "warning",
        "The gradient of {{ $labels.module }} under {{ $labels.optimizer }} in {{ $labels.run }} has vanished.",
        "Its norm is {{ $value | humanize }} while the optimizer's is not small: the module hardly learns. Look "
        "at the activations between it and the loss.",
    ),
    AlertingRule(
        "ClippingAlways",
        "increase({clipped_steps}[10m]) / (increase({steps}[10m]) > 0) > 0.95",
        "10m",
        "warning",
        "Nearly every step of {{ $labels.optimizer }} in {{ $labels.run }} is clipped.",
        "More than 95 % of the steps were above the limit for ten minutes: clipping sets the update's length, "
        "and hides what the gradients do. Raise the limit, or lower the learning rate in its place.",
    ),
    AlertingRule(
        "ClippingBroken",
        _alert_within_5m('{{rule="clip-broken"}}'),
        "0s",
        "critical",
        "The optimizer {{ $labels.optimizer }} in {{ $labels.run }} consumed more than its limit of clipping.",
        "Clipping ran before the last backward, on other parameters, or gradients were changed after it. Call it "
        "right before the optimizer's step.",
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
        "GradwatchAlert",
        _alert_within_5m(),
        "0s",
        "{{ $labels.severity }}",
        "{{ $labels.rule }} at {{ $labels.optimizer }} {{ $labels.module }} in {{ $labels.run }}.",
        _in_the_words_of_the_run(),
    ),
)


def alerting_rules(keep_firing: bool = True) -> str:
    """The rules as a YAML file for ``rule_files`` of Prometheus.

    Args:
        keep_firing: let an alert outlast a short gap, by ``keep_firing_for``: Prometheus 2.42 or later. Its
            elders and vmalert refuse a file that holds the word.
    """
    lines = ["groups:", "  - name: gradwatch", "    rules:"]
    for rule in RULES:
        lines += [
            f"      - alert: {rule.name}",
            f"        expr: {_quoted(rule.expression.format_map(_Names()))}",
            f"        for: {rule.lasting}",
            *(["        keep_firing_for: 1m"] if keep_firing else []),
            "        labels:",
            f"          severity: {_quoted(rule.severity)}",
            "        annotations:",
            f"          summary: {_quoted(rule.summary)}",
            f"          description: {_quoted(rule.description)}",
        ]
    return "\n".join(lines) + "\n"


class _Names(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return full_name(key)


def _quoted(text: str) -> str:
    """A YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"
