"""Which of a file's lines are of the newest run, and what belongs to it."""

from __future__ import annotations

from pathlib import Path

from gradwatch.records import Health
from gradwatch.report import newest_run
from gradwatch.sinks.flight import FlightRecorder
from tests.made_up import alert, record, run_info
from tests.report.files import BEGAN, DEAD, eventful, named, written


def steps_of(path: Path) -> list[int]:
    return [step.step for step in newest_run(path).steps["actor"]]


def test_the_newest_of_several_runs_is_told_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    written(path, [record(1), record(2)], run=named("first"))
    written(path, [record(1), record(2), record(3)], run=named("second", BEGAN + 60))
    run = newest_run(path)
    assert (run.name, run.others) == ("second", ["first"])
    assert steps_of(path) == [1, 2, 3]


def test_a_run_that_was_put_aside_for_its_size_is_one(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for name, steps in ((f"{path.name}.2", (1, 2)), (f"{path.name}.1", (3, 4)), (path.name, (5,))):
        written(tmp_path / name, [record(step) for step in steps])
    assert steps_of(path) == [1, 2, 3, 4, 5]
    assert newest_run(path).others == []
    path.unlink()
    assert steps_of(path) == [1, 2, 3, 4]


def test_steps_are_in_order_and_each_is_there_once(tmp_path: Path) -> None:
    assert steps_of(written(tmp_path / "x", [record(step) for step in (2, 1, 3, 2)])) == [1, 2, 3]


def test_optimizers_stand_in_the_order_of_the_run(tmp_path: Path) -> None:
    path = written(tmp_path / "x", [record(1, optimizer="critic"), record(1, optimizer="actor")])
    assert list(newest_run(path).steps) == ["actor", "critic"]


def test_the_worst_incident_comes_first(tmp_path: Path) -> None:
    titles = [incident.title for incident in newest_run(eventful(tmp_path / "x")).incidents()]
    assert titles == ["dead-relu at mlp", "nonfinite"]


def test_what_the_flight_recorder_wrote_of_this_run_is_with_it(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", [record(1)])
    for info in (run_info(), named("another")):
        recorder = FlightRecorder(path)
        recorder.open(info, Health)
        recorder.write([record(1), record(2)], [alert("firing", 2)])
    (tmp_path / "run.flight-9.jsonl").write_bytes(b"\xff\x00")
    flights = newest_run(path).flights
    assert [(flight.file, flight.steps) for flight in flights] == [("run.flight-1.jsonl", 2)]
    assert flights[0].reason.startswith("CRITICAL since step 2 of actor")
    assert flights[0].last is not None
    assert "mlp.weight" in flights[0].last.parameters


def test_half_a_line_is_counted(tmp_path: Path) -> None:
    path = eventful(tmp_path / "x")
    path.write_bytes(path.read_bytes()[:-20])
    run = newest_run(path)
    assert run.torn == 1
    assert len(run.steps["actor"]) == 299


def test_the_cause_that_was_found_when_a_flight_was_written_is_told_of_it(tmp_path: Path) -> None:
    path = eventful(tmp_path / "run.jsonl")
    before = [line for line in path.read_text().splitlines() if '"explained"' not in line]
    flight = tmp_path / "run.flight-1.jsonl"
    flight.write_text(
        "\n".join([before[0], '{"kind": "flight", "reason": "x", "time": 1.0, "steps": 1}', *before[1:]])
    )
    (_, dead) = sorted(newest_run(flight).incidents(), key=lambda incident: incident.since)
    assert dead.root == DEAD
    path.unlink()
    (_, dead) = sorted(newest_run(flight).incidents(), key=lambda incident: incident.since)
    assert dead.root is None
