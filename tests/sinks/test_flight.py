"""The flight recorder: the last steps in full, once an incident, in so many files and bytes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.blocks import Block, Steps
from gradwatch.cli import main
from gradwatch.errors import SinkError
from gradwatch.reading import Lines
from gradwatch.records import Cause, Health
from gradwatch.sinks import Jsonl
from gradwatch.sinks.flight import FlightRecorder
from tests.made_up import alert, record, run_info
from tests.reachable import reachable_bytes
from tests.test_kept import LAYOUT, block_of, drawn


def opened(path: Path) -> FlightRecorder:
    recorder = FlightRecorder(path)
    recorder.open(run_info(), Health)
    return recorder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in map(json.loads, path.read_text().splitlines()) if entry["kind"] == kind]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def train(path: Path, losses: list[float], then: BaseException | None = None) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)
    with gradwatch.track(optimizer, net, sinks=[Jsonl(path)]):
        for loss in losses:
            optimizer.zero_grad()
            (net(torch.ones(3)).sum() * loss).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        if then is not None:
            raise then


def test_the_last_steps_are_written_in_full_when_something_critical_fires(tmp_path: Path) -> None:
    train(tmp_path / "run.jsonl", [1.0] * 250 + [math.nan] * 3)
    assert files(tmp_path) == ["run.flight-1.jsonl", "run.jsonl"]
    path = tmp_path / "run.flight-1.jsonl"
    (flight,) = of_kind(path, "flight")
    steps = of_kind(path, "step")
    assert [step["step"] for step in steps] == list(range(52, 252))
    assert flight["steps"] == FlightRecorder.STEPS == 200
    assert "nonfinite" in flight["reason"]
    assert set(steps[0]["parameters"]) == {"body.weight", "body.bias", "head.weight", "head.bias"}
    assert all(pair["norm_before"] > pair["norm_after"] for pair in steps[0]["parameters"].values())
    assert steps[0]["clips"][0]["function"] == "clip_grad_norm_"
    assert steps[-1]["nonfinite"]
    assert {"unwritten", "stale", "leaked", "missed_by_clip"} <= set(steps[0])
    assert of_kind(path, "run")[0] == of_kind(tmp_path / "run.jsonl", "run")[0]


@pytest.mark.parametrize(
    ("error", "written"), [(ValueError("of the test"), True), (KeyboardInterrupt(), False), (SystemExit(1), False)]
)
def test_a_training_that_fails_leaves_its_last_steps(error: BaseException, written: bool, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        train(tmp_path / "run.jsonl", [1.0] * 5, error)
    assert files(tmp_path) == (["run.flight-1.jsonl"] if written else []) + ["run.jsonl"]
    if written:
        assert of_kind(tmp_path / "run.flight-1.jsonl", "flight")[0]["reason"] == "ValueError: of the test"
        assert len(of_kind(tmp_path / "run.flight-1.jsonl", "step")) == 5


def test_a_healthy_run_leaves_nothing(tmp_path: Path) -> None:
    train(tmp_path / "run.jsonl", [1.0] * 30)
    assert files(tmp_path) == ["run.jsonl"]


SCRIPT = """
import sys, torch, gradwatch
w = torch.nn.Parameter(torch.ones(1)); o = torch.optim.SGD([w], lr=0.0)
watch = gradwatch.track(o, sinks=[gradwatch.sinks.Jsonl(sys.argv[1])]).start()
for _ in range(3):
    w.sum().backward(); o.step(); o.zero_grad()
raise ValueError("of the test")
"""


def test_so_does_one_without_a_with(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run.jsonl")], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert of_kind(tmp_path / "run.flight-1.jsonl", "flight")[0]["reason"] == "ValueError: of the test"


def test_steps_alone_wake_nobody_in_a_flush_either(tmp_path: Path) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradwatch.track(optimizer, net, sinks=[Jsonl(tmp_path / "run.jsonl")]) as watch:
        net(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        watch.flush()
        (recorder,) = watch._recorders
        assert not recorder._kept.steps()
    assert len(recorder._kept.steps()) == 1


def test_an_incident_is_written_once(tmp_path: Path) -> None:
    recorder = opened(tmp_path / "run.jsonl")
    cause = Cause("detached", "mlp", {}, "Take it out.")
    recorder.write([record(1)], [alert(step=1), alert(step=1, module="mlp.0")])
    recorder.write([record(2)], [alert("explained", 2, cause=cause)])
    # The same trouble in a part of it, while it lasts.
    recorder.write([record(3)], [alert(step=3, module="mlp.1")])
    assert files(tmp_path) == ["run.flight-1.jsonl"]
    resolved = [alert("resolved", 9, module=module) for module in ("mlp", "mlp.0", "mlp.1")]
    recorder.write([record(9)], resolved)
    recorder.write([record(10)], [alert(step=10, severity="warning")])
    assert files(tmp_path) == ["run.flight-1.jsonl"]
    recorder.write([record(20)], [alert(step=20, rule="explosion", module=None)])
    assert files(tmp_path) == ["run.flight-1.jsonl", "run.flight-2.jsonl"]


def test_what_has_come_after_the_alert_is_in_the_next_file_alone(tmp_path: Path) -> None:
    recorder = opened(tmp_path / "run.jsonl")
    alerts = [alert(step=2), alert(step=4, rule="explosion", module=None)]
    recorder.write([record(step) for step in range(1, 6)], alerts)
    for number, steps in (1, [1, 2]), (2, [1, 2, 3, 4]):
        assert [step["step"] for step in of_kind(tmp_path / f"run.flight-{number}.jsonl", "step")] == steps


def test_the_files_beside_one_run_are_bounded_and_others_are_left_alone(tmp_path: Path) -> None:
    for name in ("run.flight-x.jsonl", "other.flight-1.jsonl", "run.flight-1.json"):
        (tmp_path / name).write_text("the user's")
    for run in range(2):
        recorder = opened(tmp_path / "run.jsonl")
        for step in range(10, 90, 10):
            recorder.write([record(step)], [alert(step=step, rule=f"rule{run}{step}")])
            recorder.write([record(step + 1)], [alert("resolved", step + 1, rule=f"rule{run}{step}")])
    own = {f"run.flight-{number}.jsonl" for number in range(7, 17)}
    assert set(files(tmp_path)) == own | {"run.flight-x.jsonl", "other.flight-1.jsonl", "run.flight-1.json"}


def test_its_memory_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlightRecorder, "BYTES", 1 << 20)
    recorder = opened(tmp_path / "run.jsonl")
    for first in range(1, 600, 16):
        steps = block_of(drawn, first, 16)
        list(steps)
        recorder.write(steps, [])
    assert reachable_bytes(recorder._kept, but=(type(LAYOUT),)) < 1.3 * (1 << 20)
    assert len(recorder._kept.steps()) >= 1


def test_it_makes_no_record_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = Block._record
    monkeypatch.setattr(Block, "_record", lambda self, index: made.append(index) or original(self, index))
    recorder = opened(tmp_path / "run.jsonl")
    recorder.write(block_of(drawn, 1, 16), [])
    assert made == []
    recorder.failed_with(ValueError())
    recorder.close()
    assert len(made) == 16


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = opened(tmp_path / "run.jsonl")
    monkeypatch.setattr(Steps, "__iter__", lambda self: iter([record(1), 1 / 0]))
    with pytest.raises(ZeroDivisionError):
        recorder.write([record(1)], [alert()])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    recorder = opened(tmp_path / "file" / "run.jsonl")
    with pytest.raises(SinkError, match=r"flight recorder cannot write beside .* make room"):
        recorder.write([record(1)], [alert()])


def test_report_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run.jsonl", [1.0] * 20 + [math.nan])
    assert main(["report", str(tmp_path / "run.flight-1.jsonl")]) == 0
    said = capsys.readouterr().out
    assert (
        "run.flight-1.jsonl, of the flight recorder: the last 21 steps before CRITICAL since step 21"
        in " ".join(said.split())
    )
    rows = [line.split() for line in said.splitlines()]
    assert ["21", "nan", "nan", "clip_grad_norm_", "to", "1", "4", "nonfinite"] in rows
    assert ["body.weight", "nan", "nan"] in rows
    assert main(["report", str(tmp_path / "run.jsonl")]) == 0


@pytest.mark.parametrize("content", [None, "", "no JSON\n", '{"kind": "step"}\n', "[1]\n"])
def test_what_is_no_run_is_refused_in_a_sentence(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content)
    assert main(["report", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_torn_file_is_read_up_to_the_tear(tmp_path: Path) -> None:
    train(tmp_path / "run.jsonl", [1.0] * 5)
    whole = (tmp_path / "run.jsonl").read_bytes()
    (tmp_path / "torn.jsonl").write_bytes(whole[:-10])
    assert [entry["step"] for entry, _ in Lines(tmp_path / "torn.jsonl") if entry["kind"] == "step"] == [
        1,
        2,
        3,
        4,
    ]


def test_read_gives_a_row_a_step(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    train(tmp_path / "run.jsonl", [1.0] * 5 + [math.nan])
    frame = gradwatch.read(tmp_path / "run.flight-1.jsonl")
    assert list(frame["step"]) == list(range(1, 7))
    assert {"optimizer", "norm_before", "clip_ratio", "body.before", "body.weight.after"} <= set(frame.columns)
    assert frame["norm_before"].isna().tolist() == [False] * 5 + [True]


def test_without_pandas_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    train(tmp_path / "run.jsonl", [1.0] * 5)
    with pytest.raises(gradwatch.errors.MissingExtraError, match="pandas"):
        gradwatch.read(tmp_path / "run.jsonl")
