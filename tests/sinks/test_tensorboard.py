import math

import pytest

from gradwatch.records import Health
from gradwatch.sinks import TensorBoard
from tests.made_up import alert, record, run_info

pytest.importorskip("tensorboard")


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def write(target, *batches):
    sink = TensorBoard(target)
    sink.open(run_info(), Health)
    for records, alerts in batches:
        sink.write(records, alerts)
    sink.close()


def test_both_norms_the_ratio_and_the_modules(tmp_path):
    write(tmp_path, ([record(7, before=4.0, after=1.0)], []))
    events = read(tmp_path)
    for tag, value in {
        "debug/actor_grad_norm_BEFORE_clip": 4.0,
        "debug/actor_grad_norm_AFTER_clip": 1.0,
        "debug/actor_grad_clip_ratio": 0.25,
        "debug/mlp_grad_norm_BEFORE_clip": 4.0,
        "debug/mlp_grad_norm_AFTER_clip": 1.0,
        "alerts/actor_critical": 0.0,
    }.items():
        (scalar,) = events.Scalars(tag)
        assert (scalar.step, scalar.value) == (7, value), tag


def test_alerts_count_from_the_step_at_which_they_fire(tmp_path):
    records = [record(step) for step in (1, 2, 3, 4)]
    write(tmp_path, (records, [alert(step=2), alert("resolved", step=4)]))
    events = read(tmp_path)
    assert [s.value for s in events.Scalars("alerts/actor_critical")] == [0.0, 1.0, 1.0, 0.0]
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("alerts/actor")]
    assert "CRITICAL zero at actor/mlp" in texts[0]


def test_nan_is_written_as_it_is(tmp_path):
    write(tmp_path, ([record(1, math.nan, math.nan)], []))
    assert math.isnan(read(tmp_path).Scalars("debug/actor_grad_norm_BEFORE_clip")[0].value)


def test_a_writer_that_is_given_is_used_and_left_open():
    class Writer:
        def __init__(self):
            self.scalars, self.texts = [], []

        def add_scalar(self, tag, value, step, walltime):
            self.scalars.append((tag, value, step))

        def add_text(self, tag, text, step):
            self.texts.append((tag, step))

    writer = Writer()
    write(writer, ([record(3)], [alert(step=3)]))
    assert ("debug/actor_grad_norm_AFTER_clip", 1.0, 3) in writer.scalars
    assert writer.texts == [("alerts/actor", 3)]
