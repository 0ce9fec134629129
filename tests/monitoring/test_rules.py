import os
import re
import shutil
import subprocess

import pytest

from gradwatch.monitoring.metrics import METRICS, full_name
from gradwatch.monitoring.rules import RULES, alerting_rules


@pytest.fixture
def promtool():
    found = os.environ.get("GRADWATCH_PROMTOOL") or shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


def test_every_name_in_the_rules_is_a_series_of_the_exporter():
    series = {full_name(name) for name in METRICS}
    used = set(re.findall(r"gradwatch_\w+", alerting_rules()))
    assert used
    assert used <= series


def test_every_rule_says_in_words_what_is_wrong():
    for rule in RULES:
        assert rule.summary.endswith(".")
        assert rule.severity in ("warning", "critical")


def test_promtool_accepts_the_rules(promtool, tmp_path):
    (tmp_path / "rules.yml").write_text(alerting_rules())
    result = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


LABELS = 'run="r",rank="0",optimizer="actor"'
# What each rule fires on after fifteen minutes: series and their values, one a minute.
FIRING = {
    "NonFiniteGradients": {"nonfinite_steps": "0x12 1 2 3 4"},
    "ExplodingGradients": {"alert_active{,rule=explosion,severity=critical,module=}": "0x12 1x5"},
    "ZeroGradients": {"module_grad_norm_after{,module=mlp}": "1x10 0x9"},
    "ClippingBroken": {"alert_active{,rule=clip-broken,severity=critical,module=}": "0x12 1x5"},
    "ClippingAlways": {"steps": "0+60x30", "clipped_steps": "0+60x30"},
    "TrainingStalled": {"last_step_timestamp_seconds": "0x30", "training_active!": "1x30"},
    "GradwatchAlert": {"alert_active{,rule=zero,severity=critical,module=mlp}": "0x12 1x5"},
}
QUIET = {
    "NonFiniteGradients": {"nonfinite_steps": "0x30"},
    "ExplodingGradients": {"alert_active{,rule=zero,severity=critical,module=}": "1x30"},
    "ZeroGradients": {"module_grad_norm_after{,module=mlp}": "1 0x0 1x30"},
    "ClippingBroken": {"alert_active{,rule=clip-broken,severity=critical,module=}": "0x30"},
    "ClippingAlways": {"steps": "0+60x30", "clipped_steps": "0+30x30"},
    "TrainingStalled": {"last_step_timestamp_seconds": "0+60x30", "training_active!": "1x30"},
    "GradwatchAlert": {"alert_active{,rule=zero,severity=critical,module=mlp}": "0x30"},
}


def series_of(key, values):
    name, _, more = key.partition("{")
    labels = 'run="r",rank="0"' if name.endswith("!") else LABELS
    extra = "".join(
        f',{pair.split("=")[0]}="{pair.split("=")[1]}"' for pair in more.rstrip("}").split(",") if pair
    )
    return f"      - series: '{full_name(name.rstrip('!'))}{{{labels}{extra}}}'\n        values: '{values}'\n"


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
@pytest.mark.parametrize("fires", [True, False])
def test_each_rule_fires_where_it_should_and_only_there(promtool, tmp_path, rule, fires):
    (tmp_path / "rules.yml").write_text(alerting_rules())
    inputs = "".join(series_of(key, values) for key, values in (FIRING if fires else QUIET)[rule].items())
    (tmp_path / "test.yml").write_text(
        "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n"
        + inputs
        + "    promql_expr_test:\n"
        + f'      - expr: count(ALERTS{{alertname="{rule}",alertstate="firing"}}) or vector(0)\n'
        + f"        eval_time: 25m\n        exp_samples:\n          - value: {int(fires)}\n"
    )
    if rule in ("NonFiniteGradients",) and fires:
        text = (tmp_path / "test.yml").read_text().replace("25m", "15m")
        (tmp_path / "test.yml").write_text(text)
    for name in ("ExplodingGradients", "ClippingBroken", "GradwatchAlert", "ZeroGradients"):
        if rule == name and fires:
            (tmp_path / "test.yml").write_text((tmp_path / "test.yml").read_text().replace("25m", "16m"))
    result = subprocess.run([promtool, "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr).decode()
