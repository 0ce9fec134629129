"""The reference workload on the device, in both presets: a process each, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.gpu.environment import ROOT
from tests.gpu.packages import reason
from tests.gpu.stages import Found, Settings, Table

NEEDED = ("gymnasium", "rich", "tensorboard", "prometheus_client")
TIMESTEPS = {"fixed": 500, "legacy": 300}
QUICK = {"max-timesteps": 16, "learning-starts": 10, "batch-size": 8}
SECONDS = 60.0
SAID = 3000
COLUMNS = (
    "preset",
    "timesteps",
    "exit code",
    "seconds",
    "critic updates",
    "actor updates",
    "updates a second",
    "alerts fired",
    "causes",
)


def agent(settings: Settings, found: Found) -> None:
    """``fixed`` must fire nothing critical; ``legacy`` must be told that its policy is silent, and why."""
    why = reason(NEEDED)
    if why is not None:
        found.left_out.append(f"the TD3 workload, both presets: {why}")
        return
    table = Table("The TD3 workload", COLUMNS, [])
    found.tables.append(table)
    for preset, timesteps in TIMESTEPS.items():
        size = QUICK if settings.quick else {"max-timesteps": timesteps}
        ran = run({"preset": preset, "device": settings.device.type, **size})
        found.data[preset] = ran
        table.rows.append(row(preset, ran))
        found.failures += [f"TD3, {preset}: {what}" for what in wrong(preset, ran, settings.quick)]


def run(options: dict[str, str | int]) -> dict[str, Any]:
    """Train in a process of its own with these options, and read its log."""
    with tempfile.TemporaryDirectory() as folder:
        everywhere = {**options, "log-dir": folder, "prometheus-port": 0}
        command = [sys.executable, "-m", "examples.carla_td3.train"]
        command += [word for name, value in everywhere.items() for word in (f"--{name}", str(value))]
        began = time.perf_counter()
        try:
            process = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
            )
            code, said = process.returncode, process.stdout + process.stderr
        except subprocess.TimeoutExpired:
            code, said = None, f"not done in {SECONDS:.0f} s"
        log = next(Path(folder).rglob("gradwatch.jsonl"), None)
        lines = log.read_text(encoding="utf-8").splitlines() if log else []
    told = {
        "options": options,
        "exit_code": code,
        "seconds": time.perf_counter() - began,
        "said": said[-SAID:],
    }
    return {**told, **summary(lines)}


def summary(lines: list[str]) -> dict[str, Any]:
    """What the log of a run says; a last line that was cut off is not read."""
    entries = [entry for line in lines if (entry := _entry(line)) is not None]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    alerts = [entry for entry in entries if entry["kind"] == "alert"]
    passed = steps[-1]["time"] - steps[0]["time"] if len(steps) > 1 else 0.0
    last = {
        step["optimizer"]: {key: step[key] for key in ("step", "norm_before", "norm_after", "modules")}
        for step in steps
    }
    return {
        "updates": {name: end["step"] for name, end in last.items()},
        "updates_per_second": (len(steps) - 1) / passed if passed else 0.0,
        "fired": [_name(alert) for alert in alerts if alert["state"] == "firing"],
        "critical": [
            _name(alert) for alert in alerts if alert["state"] == "firing" and alert["severity"] == "critical"
        ],
        "causes": sorted(
            {f"{alert['cause']['kind']} at {alert['cause']['where']}" for alert in alerts if alert["cause"]}
        ),
        "last": last,
    }


def _entry(line: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


def _name(alert: dict[str, Any]) -> str:
    return f"{alert['rule']} at {alert['module'] or alert['optimizer']}, step {alert['step']}"


def wrong(preset: str, ran: dict[str, Any], quick: bool) -> list[str]:
    """What should have been otherwise; a quick run is too short for the silence of ``legacy``."""
    # 3 says that a line of its checklist fails: 500 decisions are too few to drive well.
    found = [] if ran["exit_code"] in (0, 3) else [f"exit code {ran['exit_code']}: {ran['said'][-500:]}"]
    if not ran["updates"]:
        found.append("no step in its log")
    if preset == "fixed" and ran["critical"]:
        found.append(f"critical alerts in a healthy run: {'; '.join(ran['critical'])}")
    if preset == "legacy" and not quick and "saturated-tanh at actor_mlp" not in ran["causes"]:
        found.append("the silent policy was not explained")
    return found


def row(preset: str, ran: dict[str, Any]) -> tuple[str, ...]:
    """The line of the table."""
    counts = (str(ran["updates"].get(name, 0)) for name in ("critic", "actor"))
    words = ("; ".join(ran[key]) or "none" for key in ("fired", "causes"))
    return (
        preset,
        str(ran["options"]["max-timesteps"]),
        str(ran["exit_code"]),
        f"{ran['seconds']:.1f}",
        *counts,
        f"{ran['updates_per_second']:.1f}",
        *words,
    )
