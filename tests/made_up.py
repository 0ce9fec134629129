"""Records and alerts that no training loop made."""

from __future__ import annotations

from typing import Any

from gradwatch.judge.judge import Judge
from gradwatch.records import Alert, GroupNorms, RunInfo, StepRecord
from gradwatch.rules import default_rules


def record(step: int = 1, before: float = 5.0, after: float = 1.0, **other: Any) -> StepRecord:
    values: dict[str, Any] = {
        "optimizer": "actor",
        "time": 1_700_000_000.0 + step,
        "clip_ratio": after / before if before else 1.0,
        "max_norm": 1.0,
        "modules": {"mlp": GroupNorms(before, after)},
        "parameters": {"mlp.weight": GroupNorms(before, after)},
        **other,
    }
    return StepRecord(step=step, norm_before=before, norm_after=after, **values)


def alert(state: str = "firing", step: int = 1, **other: Any) -> Alert:
    values: dict[str, Any] = {
        "rule": "zero",
        "severity": "critical",
        "optimizer": "actor",
        "module": "mlp",
        "value": 0.0,
        "threshold": 0.0,
        "message": "the gradient of mlp is exactly 0",
        **other,
    }
    return Alert(state=state, step=step, **values)  # type: ignore[arg-type]


def run_info(modules: tuple[str, ...] = ("mlp",)) -> RunInfo:
    rules = Judge(default_rules()).severities
    return RunInfo("test-1", 0, 1_700_000_000.0, "3.11", "2.13", "0.1.0", ("actor",), {"actor": modules}, rules)
