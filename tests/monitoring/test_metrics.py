import re

from gradwatch.monitoring.metrics import METRICS, PREFIX, full_name

OPTIMIZER = ("run", "rank", "optimizer")

# What dashboards and rules elsewhere are written against: a change here breaks them.
PUBLISHED = {
    "gradwatch_build_info": ("version", "python", "torch"),
    "gradwatch_run_info": ("run", "rank"),
    "gradwatch_training_active": ("run", "rank"),
    "gradwatch_last_step_timestamp_seconds": OPTIMIZER,
    "gradwatch_steps_total": OPTIMIZER,
    "gradwatch_clipped_steps_total": OPTIMIZER,
    "gradwatch_skipped_steps_total": OPTIMIZER,
    "gradwatch_nonfinite_steps_total": OPTIMIZER,
    "gradwatch_grad_norm_before": OPTIMIZER,
    "gradwatch_grad_norm_after": OPTIMIZER,
    "gradwatch_clip_ratio": OPTIMIZER,
    "gradwatch_clip_max_norm": OPTIMIZER,
    "gradwatch_grad_norm_before_window_max": OPTIMIZER,
    "gradwatch_grad_norm_before_distribution": OPTIMIZER,
    "gradwatch_module_grad_norm_before": (*OPTIMIZER, "module"),
    "gradwatch_module_grad_norm_after": (*OPTIMIZER, "module"),
    "gradwatch_module_nonfinite_steps_total": (*OPTIMIZER, "module"),
    "gradwatch_alert_active": (*OPTIMIZER, "rule", "severity", "module"),
    "gradwatch_alert_info": (*OPTIMIZER, "rule", "severity", "module", "incident", "role", "words"),
    "gradwatch_alerts_total": (*OPTIMIZER, "rule", "severity"),
    "gradwatch_overhead_seconds_total": ("run", "rank"),
    "gradwatch_dropped_records_total": ("run", "rank"),
    "gradwatch_sink_errors_total": ("run", "rank", "sink"),
    "gradwatch_modules_dropped": ("run", "rank"),
}


def test_names_and_labels_are_the_published_ones():
    assert {full_name(name): metric.labels for name, metric in METRICS.items()} == PUBLISHED


def test_names_are_valid_since_the_client_does_not_check_them():
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", PREFIX + name)
        # Prometheus sets these two itself.
        assert not {"job", "instance"} & set(metric.labels)
        assert metric.help.endswith(".")
