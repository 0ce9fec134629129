"""What a run tells TensorBoard of its episodes and of its pace."""

from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.carla_td3 import reporting
from examples.carla_td3.options import parse
from examples.carla_td3.reporting import Report

GOES_ON = {"route": 0.1, "collided": False, "off_road": False, "finished": False}
# By decision, how an episode ends there.
ENDS = {40: {"collided": True}, 90: {"finished": True, "route": 1.0}, 210: {"off_road": True}}


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    seconds = iter(range(0, 10_000, 25))
    monkeypatch.setattr(reporting, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    report = Report(parse(["--prometheus-port", "0"]), tmp_path, start=0)
    for step in range(1, 501):
        report.stepped(step, 0.5, False, {**GOES_ON, **ENDS.get(step, {})})
    report.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    points = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return points, capsys.readouterr().out


def test_ends_of_episodes_are_curves(told):
    points, _ = told
    assert points["train/collided"] == [(40, 1.0), (90, 0.0), (210, 0.0)]
    assert points["train/arrived"] == [(40, 0.0), (90, 1.0), (210, 0.0)]
    assert points["train/episode_length"] == [(40, 40.0), (90, 50.0), (210, 120.0)]


def test_the_pace_is_that_of_the_last_hundred_decisions(told):
    points, out = told
    assert points["train/steps_per_second"] == [(step, 4.0) for step in range(100, 501, 100)]
    assert out == "step 500: 4.0 steps a second\n"
