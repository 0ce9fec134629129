"""Each logger as it is, offline: every point of gradwatch and of the program, at its step, in the program's run."""

from __future__ import annotations

import importlib
import json
import math
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gradwatch
from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.records import Health
from gradwatch.sinks import MLflow, Trackio, WandB
from tests.interop.library import library
from tests.made_up import run_info

STEPS = 70
HOW = ["each step", "each step, counted", "each tenth step", "each tenth step, counted", "in two parts", "never"]

Points = dict[str, dict[int, float]]


def train(sink: Any, log: Any, how: str, steps: int = STEPS) -> Any:
    """Two optimizers, of which the second steps every other time; the loss becomes 0 for a while."""
    torch.manual_seed(0)
    net, other = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    optimizers = {
        "actor": torch.optim.SGD(net.parameters(), 0.1),
        "critic": torch.optim.SGD(other.parameters(), 0.1),
    }
    memory = gradwatch.sinks.Memory()
    with gradwatch.track(optimizers, {"net": net, "other": other}, sinks=[memory, sink], run="mine") as watch:
        for step in range(steps):
            for name, model in (("actor", net), ("critic", other)):
                if name == "actor" or step % 2:
                    optimizers[name].zero_grad()
                    (model(torch.randn(8, 4)).square().mean() * (0.0 if 20 <= step < 30 else 1.0)).backward()
                    optimizers[name].step()
            say(log, how, step)
            if step == 40:
                watch.flush()  # so that not all comes at the end
    if how != "never":
        log({"test": 1.0}, step=steps) if "counted" in how else log({"test": 1.0})
    return memory, watch


def say(log: Any, how: str, step: int) -> None:
    if how.startswith("each step") or (how.startswith("each tenth") and step % 10 == 0):
        log({"loss": float(step)}, step=step) if "counted" in how else log({"loss": float(step)})
    elif how == "in two parts":
        log({"loss": float(step)}, commit=False)
        log({"rate": float(step)})


def expected(memory: Any) -> Points:
    points: Points = defaultdict(dict)
    for record in memory.records:
        head = f"gradwatch/{record.optimizer}"
        for name, value in (
            ("norm_before", record.norm_before), ("norm_after", record.norm_after), ("clip_ratio", record.clip_ratio),
        ):  # fmt: skip
            points[f"{head}/{name}"][record.step] = value
        for module, norms in record.modules.items():
            points[f"{head}/{module}/norm_before"][record.step] = norms.norm_before
            points[f"{head}/{module}/norm_after"][record.step] = norms.norm_after
    assert len(memory.records) == STEPS + STEPS // 2
    return points


def alerts(watch: Any) -> list[str]:
    told = [str(alert) for alert in watch.alerts]
    assert {line[0] for line in told} >= {"!", "+"}
    return told


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kept", [False, True], ids=["", "log kept from before"])
@pytest.mark.parametrize("how", HOW)
def test_wandb(how: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = library("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=tmp_path, project="p", settings=wandb.Settings(console="off"))
    # Who has kept the function from before tracking is not seen to log; then all waits for the end of the run.
    log = wandb.log if kept else lambda *given, **named: wandb.log(*given, **named)
    memory, watch = train(WandB(), log, how)
    if how == "each step, counted" and not kept:
        # Not all waits for the end of the run: who gives a step for each has room for all but the last blocks.
        assert sum(map(len, run.log.__self__._waiting.values())) <= 2 * 32
    assert run.config["gradwatch/run"] == "mine"
    wandb.finish()
    rows, said = wandb_file(next(Path(run.settings.sync_dir).glob("*.wandb")))
    found: Points = defaultdict(dict)
    for row in rows:
        for tag, value in row.items():
            optimizer = tag.split("/")[1] if tag.startswith("gradwatch/") else None
            if optimizer is not None and tag != f"gradwatch/{optimizer}/step":
                found[tag][row[f"gradwatch/{optimizer}/step"]] = float(value)
    assert found == expected(memory)
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    check_the_programs_own(rows, how)
    assert said == alerts(watch)


def check_the_programs_own(rows: list[dict[str, Any]], how: str) -> None:
    mine = [row for row in rows if "loss" in row]
    spoken = [] if how == "never" else range(0, STEPS, 10 if "tenth" in how else 1)
    assert [row["loss"] for row in mine] == [float(step) for step in spoken]
    if "counted" in how:
        assert [row["_step"] for row in mine] == list(spoken)
        assert [row["_step"] for row in rows if "test" in row] == [STEPS]
    if how == "in two parts":
        assert [row["rate"] for row in mine] == [row["loss"] for row in mine]


def wandb_file(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of an offline run and its alerts."""
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + 60
    records: list[Any] = []
    # W&B's service writes the end of the file a moment after finish() has returned.
    while not (records and records[-1].HasField("exit")) and time.monotonic() < deadline:
        time.sleep(0.05)
        records = [wandb_internal_pb2.Record.FromString(data) for data in parts_of(path.read_bytes())]
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    return rows, [record.alert.text for record in records if record.HasField("alert")]


def parts_of(log: bytes) -> Iterator[bytes]:
    """A log as LevelDB writes it, after 7 bytes of W&B's own: blocks of 32 KiB, in them whole records and parts."""
    block, head = 32768, struct.Struct("<IHB")
    place, record = 7, b""
    while place + head.size <= len(log):
        if block - place % block < head.size:
            place += block - place % block
            continue
        _, size, kind = head.unpack_from(log, place)
        place += head.size
        record += log[place : place + size]
        place += size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["each step, counted", "each tenth step, counted", "never"])
def test_mlflow(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = library("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with mlflow.start_run() as run:
        memory, watch = train(MLflow(), lambda values, step: mlflow.log_metrics(values, step=step), how)
    client = mlflow.MlflowClient()
    assert [one.info.run_id for one in client.search_runs([run.info.experiment_id])] == [run.info.run_id]
    points = expected(memory)
    kept = client.get_run(run.info.run_id).data
    for tag, values in points.items():
        assert {m.step: m.value for m in client.get_metric_history(run.info.run_id, tag)} == values
    assert set(kept.metrics) - set(points) == (set() if how == "never" else {"loss", "test"})
    if how != "never":
        losses = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "loss")}
        assert losses == {step: float(step) for step in range(0, STEPS, 10 if "tenth" in how else 1)}
    named = {tag: value for tag, value in kept.tags.items() if tag.startswith("gradwatch/")}
    assert named.pop("gradwatch/run") == "mine"
    assert set(named.values()) <= set(alerts(watch))
    assert named


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["each step", "each step, counted", "each tenth step", "never"])
@pytest.mark.parametrize("begun", ["by the program", "by the sink"])
def test_trackio(how: str, begun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = library("trackio")
    storage = importlib.import_module("trackio.sqlite_storage")
    for module in (storage, importlib.import_module("trackio.utils")):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path, raising=False)
    context = importlib.import_module("trackio.context_vars").current_run
    if begun == "by the program":
        trackio.init("p", name="mine", auto_log_gpu=False, auto_log_cpu=False, embed=False)
        memory, watch = train(Trackio("p"), trackio.log, how)
        trackio.finish()
    else:
        memory, watch = train(Trackio("p"), lambda *_, **__: None, "never")
        how = "never"
    context.set(None)
    assert storage.SQLiteStorage.get_runs("p") == ["mine"]
    rows = storage.SQLiteStorage.get_logs("p", "mine")
    found: Points = defaultdict(dict)
    for row in rows:
        for tag, value in row.items():
            if tag.startswith("gradwatch/"):
                found[tag][row["step"]] = value
    assert found == expected(memory)
    spoken = list(range(0, STEPS, 10 if "tenth" in how else 1)) if how != "never" else []
    assert [row["loss"] for row in rows if "loss" in row] == [float(step) for step in spoken]
    at = [row["step"] for row in rows if "loss" in row]
    assert at == (spoken if "counted" in how else list(range(len(spoken))))
    assert sorted(row["text"] for row in storage.SQLiteStorage.get_alerts("p")) == sorted(alerts(watch))


@pytest.mark.parametrize(
    ("sink", "package"), [(WandB(), "wandb"), (MLflow(), "mlflow"), (Trackio("p"), "trackio")]
)
def test_a_library_that_is_missing_is_named(sink: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"gradwatch\[{package}\]"):
        sink.open(run_info(), Health)


@pytest.mark.parametrize(("kind", "package"), [(WandB, "wandb"), (MLflow, "mlflow")])
@pytest.mark.filterwarnings("ignore")
def test_without_a_run_there_is_one_sentence(kind: Any, package: str) -> None:
    library(package)
    with pytest.raises(SinkError, match="is active: call"):
        kind().open(run_info(), Health)


def test_numbers_that_are_none_reach_the_logger_as_they_are() -> None:
    from gradwatch.sinks.points import points
    from tests.made_up import record

    (point,) = points([record(3, math.inf, math.nan)])
    assert (point.optimizer, point.step) == ("actor", 3)
    assert math.isinf(point.values["gradwatch/actor/norm_before"])
    assert math.isnan(point.values["gradwatch/actor/mlp/norm_after"])


class OutOfSorts:
    """A run of W&B that takes the program's rows alone."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.config = SimpleNamespace(update=lambda *_, **__: None)
        self.define_metric = self.finish = lambda *_, **__: None

    def log(self, row: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        if any(tag.startswith("gradwatch/") for tag in row):
            raise ConnectionError
        self.taken.append((row, step))


@pytest.mark.parametrize("counted", [True, False])
def test_what_wandb_raises_of_a_row_of_gradwatchs_does_not_reach_the_program(
    counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OutOfSorts()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run))  # type: ignore[arg-type]
    net = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    said = [({"loss": 1.0}, 10 * step if counted else None) for step in range(8)]
    with gradwatch.track(optimizer, net, sinks=[WandB()]) as watch:
        for row, step in said:
            net(torch.ones(2, 4)).square().mean().backward()
            optimizer.step()
            watch.flush()
            run.log(row, step=step)
        watch.flush()
        assert watch.health().sink_errors["WandB"]
    run.finish()
    assert run.taken == said
