import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.errors import SinkError
from gradwatch.records import Cause, ClipCall, Health
from gradwatch.sinks import Jsonl
from gradwatch.sinks.jsonl import plain
from tests.made_up import alert, record, run_info


def written(path, records=(), alerts=()):
    sink = Jsonl(path)
    sink.open(run_info(), Health)
    sink.write(records, alerts)
    sink.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_the_run_each_step_and_each_alert(tmp_path):
    cause = Cause("saturated-tanh", "mlp.2", {"share": 0.99}, "Lower the learning rate.")
    step = record(3, clips=(ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0),), missing=("mlp.bias",))
    run, line, said = written(tmp_path / "new" / "run.jsonl", [step], [alert(cause=cause)])
    assert (run["kind"], run["schema"], run["torch"], run["optimizers"]) == ("run", 1, "2.13", ["actor"])
    assert (line["kind"], line["step"], line["norm_before"], line["norm_after"]) == ("step", 3, 5.0, 1.0)
    assert line["modules"] == {"mlp": {"norm_before": 5.0, "norm_after": 1.0}}
    assert line["clips"][0]["function"] == "clip_grad_norm_"
    assert line["missing"] == ["mlp.bias"]
    assert (said["kind"], said["rule"], said["cause"]["kind"]) == ("alert", "zero", "saturated-tanh")


def test_numbers_that_json_lacks_are_strings(tmp_path):
    lines = written(tmp_path / "x", [record(1, math.nan, math.inf), record(2, 1.0, -math.inf)])
    assert [(line["norm_before"], line["norm_after"]) for line in lines[1:]] == [
        ("NaN", "Infinity"),
        (1.0, "-Infinity"),
    ]


def test_a_resumed_run_is_appended(tmp_path):
    written(tmp_path / "x", [record(1)])
    assert [line["kind"] for line in written(tmp_path / "x", [record(2)])] == ["run", "step", "run", "step"]


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"cannot be written .*: give a path"):
        Jsonl(tmp_path / "file" / "x.jsonl").open(run_info(), Health)


@given(st.floats(min_value=0, max_value=sys.float_info.max))
def test_finite_norms_come_back_bit_for_bit(norm):
    assert json.loads(json.dumps(plain(record(before=norm, clip_ratio=0.0))))["norm_before"] == norm
