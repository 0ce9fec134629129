import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.blocks import Block, Steps
from gradwatch.errors import SinkError
from gradwatch.records import Alert, Cause, ClipCall, GroupNorms, Health, StepRecord
from gradwatch.sinks import Jsonl
from gradwatch.sinks.brief import brief_lines
from gradwatch.sinks.curves import curves
from gradwatch.sinks.encoding import encoded
from tests.blocks import made_up_blocks
from tests.made_up import alert, record, run_info


def written(path, records=(), alerts=(), **options):
    sink = Jsonl(path, **{"parameters": True, **options})
    sink.open(run_info(), Health)
    sink.write(records, alerts)
    sink.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_the_run_each_step_and_each_alert(tmp_path):
    cause = Cause("saturated-tanh", "mlp.2", {"share": 0.99}, "Lower the learning rate.")
    step = record(3, clips=(ClipCall("clip_grad_norm_", 1.0, 2.0, 5.0),), missing=("mlp.bias",))
    run, line, said = written(tmp_path / "new" / "newer" / "run.jsonl", [step], [alert(cause=cause)])
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
    assert json.loads(encoded(record(before=norm, clip_ratio=0.0)))["norm_before"] == norm


def test_half_a_line_of_a_run_that_was_killed_keeps_to_itself(tmp_path):
    (tmp_path / "x").write_text('{"kind": "step", "st')
    sink = Jsonl(tmp_path / "x")
    sink.open(run_info(), Health)
    sink.write([record(2)], [])
    sink.close()
    torn, *lines = (tmp_path / "x").read_text().splitlines()
    assert torn == '{"kind": "step", "st'
    assert [json.loads(line)["kind"] for line in lines] == ["run", "step"]


def test_each_batch_is_on_disk_when_write_returns(tmp_path):
    sink = Jsonl(tmp_path / "x")
    sink.open(run_info(), Health)
    sink.write([record(1), record(2)], [])
    assert len((tmp_path / "x").read_text().splitlines()) == 3
    sink.close()


def test_an_alert_comes_behind_the_step_that_it_was_raised_on(tmp_path):
    lines = written(tmp_path / "x", [record(1), record(2), record(3)], [alert(step=2)])
    assert [(line["kind"], line.get("step")) for line in lines[1:]] == [
        ("step", 1),
        ("step", 2),
        ("alert", 2),
        ("step", 3),
    ]


def test_evidence_of_any_type_loses_no_line(tmp_path):
    evidence = {"share": np.float32(0.5), "units": np.int64(3), "worst": np.float64("inf"), "where": Path("a")}
    (_, said) = written(tmp_path / "x", [], [alert(cause=Cause("masked", "mlp", evidence, "Look."))])
    assert said["cause"]["evidence"] == {"share": 0.5, "units": 3, "worst": "Infinity", "where": "a"}


def test_a_sink_can_be_opened_again_and_closed_twice(tmp_path):
    sink = Jsonl(tmp_path / "x")
    for _ in range(2):
        sink.open(run_info(), Health)
        sink.close()
        sink.close()
    assert len((tmp_path / "x").read_text().splitlines()) == 2


def brief(path, *records, **options):
    return written(path, records, parameters=False, **options)[1:]


def test_a_brief_line_has_the_norms_of_the_lines_in_the_order_of_the_run(tmp_path):
    modules = {"mlp": GroupNorms(0.1, 0.05), "cnn": GroupNorms(2.0, 2.0)}
    sink = Jsonl(tmp_path / "x")
    sink.open(run_info(("mlp", "cnn")), Health)
    sink.write(
        [record(3, 1 / 3, 0.05, modules=modules, clipped=True), record(4, modules={"new": GroupNorms(1, 0)})], []
    )
    sink.close()
    run, line, other = [json.loads(text) for text in (tmp_path / "x").read_text().splitlines()]
    assert run["modules"] == {"actor": ["mlp", "cnn"]}
    assert line == {
        "kind": "step",
        "optimizer": "actor",
        "step": 3,
        "time": 1700000003.0,
        "norm_before": 1 / 3,
        "norm_after": 0.05,
        "max_norm": 1.0,
        "clipped": True,
        "modules": [[0.1, 0.05], 2.0],
    }
    assert other["modules"] == {"new": [1, 0]}


def test_a_brief_line_says_what_is_out_of_the_ordinary(tmp_path):
    odd = record(
        1, math.nan, math.inf, skipped=True, nonfinite=("mlp.weight",), missing_modules=("mlp",), loss_scale=8.0,
        backward_passes=3, lost_passes=2, max_norm=None, missing=("mlp.bias",),
    )  # fmt: skip
    (line,) = brief(tmp_path / "x", odd)
    names = ("skipped", "nonfinite", "missing_modules", "loss_scale", "backward_passes", "lost_passes")
    assert [line[name] for name in names] == [True, ["mlp.weight"], ["mlp"], 8.0, 3, 2]
    assert (line["norm_before"], line["norm_after"], line["modules"]) == ("NaN", "Infinity", [["NaN", "Infinity"]])
    assert not {"max_norm", "missing", "parameters", "clips"} & set(line)


def test_each_nth_step_is_written_and_those_with_an_alert(tmp_path):
    steps = [record(step) for step in range(1, 21)]
    lines = written(tmp_path / "x", steps, [alert(step=7), alert("resolved", 13)], every=5)
    assert [line["step"] for line in lines if line["kind"] == "step"] == [5, 7, 10, 13, 15, 20]
    assert [line["step"] for line in lines if line["kind"] == "alert"] == [7, 13]


def test_ten_lines_take_at_most_600_bytes_whatever_their_names_and_norms(tmp_path):
    for place, size in enumerate((1e-30, 1 / 3, 1e30)):
        modules = {
            f"transformer.block.{n}.{'x' * 40}": GroupNorms(size / (n + 3), size / (n + 7)) for n in range(10)
        }
        path = tmp_path / f"{place}"
        sink = Jsonl(path)
        sink.open(run_info(tuple(modules)), Health)
        sink.write([record(123456, size / 3, size / 7, modules=modules, clipped=True, max_norm=size / 7)], [])
        sink.close()
        assert len(path.read_text().splitlines()[1]) + 1 <= 600


def lines_of(steps, names):
    (shown,) = curves(steps)
    return brief_lines(shown, steps, names)


@pytest.mark.parametrize("seed", range(4))
def test_brief_lines_of_a_block_are_those_of_its_records(seed):
    for block in made_up_blocks(seed, 200):
        names = {block.layout.optimizer: block.layout.lines.names}
        of_records = [lines_of(Steps.of([one]), names)[0] for one in block]
        assert lines_of(Steps.of(block), names) == of_records


def test_of_what_is_as_usual_no_record_is_made(monkeypatch):
    (block, *_) = [b for b in made_up_blocks(3, 400) if all(r.facts.as_usual and not r.skipped for r in b.rows)]
    monkeypatch.setattr(Block, "_record", lambda *_: pytest.fail("a record was made"))
    usual = [
        i for i, r in enumerate(block.rows)
        if r.loss_scale is None and r.backward_passes == 1 and not r.lost_passes and not block.nonfinite[i]
    ]  # fmt: skip
    assert len(lines_of(Steps((block, place) for place in usual), {})) == len(usual) > 0


names = st.text(st.characters(), max_size=8)
floats = st.floats()
norms = st.builds(GroupNorms, floats, floats)
clips = st.builds(
    ClipCall,
    names,
    floats,
    st.none() | floats,
    st.none() | floats,
    st.none() | floats,
    st.none() | floats,
    st.lists(names, max_size=2).map(tuple),
)
records = st.builds(
    StepRecord,
    optimizer=names,
    step=st.integers(1),
    time=floats,
    norm_before=floats,
    norm_after=floats,
    clip_ratio=floats,
    max_norm=st.none() | floats,
    clipped=st.booleans(),
    clips=st.lists(clips, max_size=2).map(tuple),
    modules=st.dictionaries(names, norms, max_size=3),
    parameters=st.dictionaries(names, norms, max_size=3),
    backward_passes=st.integers(0),
    skipped=st.booleans(),
    loss_scale=st.none() | floats,
    missing=st.lists(names, max_size=2).map(tuple),
    nonfinite=st.lists(names, max_size=2).map(tuple),
    missing_modules=st.lists(names, max_size=2).map(tuple),
    unwritten=st.lists(names, max_size=2).map(tuple),
    missed_by_clip=st.lists(names, max_size=2).map(tuple),
    lost=st.lists(names, max_size=2).map(tuple),
)
causes = st.builds(Cause, names, names, st.dictionaries(names, floats | st.integers(), max_size=3), names)
alerts = st.builds(
    Alert,
    rule=names,
    severity=st.sampled_from(["warning", "critical"]),
    state=st.sampled_from(["firing", "explained", "resolved"]),
    optimizer=names,
    module=st.none() | names,
    step=st.integers(1),
    value=floats,
    threshold=floats,
    message=names,
    cause=st.none() | causes,
)


NAMES = (
    "missing",
    "nonfinite",
    "missing_modules",
    "unwritten",
    "stale",
    "leaked",
    "frozen",
    "missed_by_clip",
    "clipped_between",
    "lost",
)


def number(value):
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def numbers(fields, *which):
    return {name: number(value) if name in which else value for name, value in fields.items()}


def group_norms(table):
    return {name: GroupNorms(**numbers(entry, "norm_before", "norm_after")) for name, entry in table.items()}


def step_of(line):
    """The record as a reader of the documentation alone would build it."""
    fields = numbers(line, "time", "norm_before", "norm_after", "clip_ratio", "max_norm", "loss_scale")
    calls = ("limit", "norm_type", "norm_returned", "scope_before", "scope_after")
    for call in fields["clips"]:
        call["repeated"] = tuple(call["repeated"])
    fields["clips"] = tuple(ClipCall(**numbers(call, *calls)) for call in fields["clips"])
    for name in ("modules", "parameters"):
        fields[name] = group_norms(fields[name])
    for name in NAMES:
        fields[name] = tuple(fields[name])
    return StepRecord(**fields)


def alert_of(line):
    fields = numbers(line, "value", "threshold", "time")
    if fields["cause"] is not None:
        evidence = {name: number(value) for name, value in fields["cause"]["evidence"].items()}
        fields["cause"] = Cause(**{**fields["cause"], "evidence": evidence})
    return Alert(**fields)


@given(records, alerts)
def test_any_record_and_alert_come_back_as_they_were(tmp_path_factory, step, said):
    path = tmp_path_factory.mktemp("round-trip") / "run.jsonl"
    _, *lines = written(path, [step], [said])
    back = {line.pop("kind"): line for line in lines}
    # What owners repeat of the parameters is not written.
    step = replace(step, owners={}, missing_owners=())
    # repr, for NaN is not equal to itself; it tells 0.0 from -0.0 too.
    assert repr(step_of(back["step"])) == repr(step)
    assert repr(alert_of(back["alert"])) == repr(said)
    assert len(lines) == 2
