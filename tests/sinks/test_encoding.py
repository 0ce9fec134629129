"""Lines are those that json.dumps writes of the plain values."""

import json
import math
from array import array
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings

from gradwatch.records import Cause, GroupNorms, NormTable, StepRecord
from gradwatch.sinks.encoding import encoded, line
from tests import odd_blocks
from tests.made_up import alert, record, run_info

LEFT_OUT = ("owners", "missing_owners")


def plain(value):
    """What JSON knows, written down for its meaning alone."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, GroupNorms):
        return plain(value._asdict())
    if hasattr(value, "items"):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.name not in LEFT_OUT}
    if math.isnan(value):
        return "NaN"
    return float(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def expected(kind, value):
    return json.dumps({"kind": kind, **plain(value)}, allow_nan=False) + "\n"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=40)
@given(odd_blocks.blocks())
def test_any_step_of_a_block_is_written_as_json_does(block):
    for step in block:
        assert line("step", step) == expected("step", step)


def test_a_record_and_an_alert_that_were_made_by_hand_are_too():
    cause = Cause("saturated-tanh", "mlp", {"share": math.inf, "units": 3}, "Lower it, by 10 %.")
    odd = record(
        before=np.float64(0.1), modules={"%s": GroupNorms(1, -0.0)}, left_out={"a\n": ("b",)}, loss_scale=2
    )
    for kind, value in (("step", odd), ("alert", alert(cause=cause)), ("run", run_info())):
        assert line(kind, value) == expected(kind, value)


def test_fields_that_repeat_others_are_left_out():
    written = json.loads(line("step", record(owners={"mlp": GroupNorms(1.0, 1.0)}, missing_owners=("mlp",))))
    assert list(written) == ["kind", *(f.name for f in fields(StepRecord) if f.name not in LEFT_OUT)]


def test_one_number_that_is_not_finite_changes_no_other():
    table = NormTable({"a": 0, "b": 1}, array("d", [0.1, math.nan]), array("d", [math.inf, -0.0]))
    assert encoded(table) == (
        '{"a": {"norm_before": 0.1, "norm_after": "Infinity"}, "b": {"norm_before": "NaN", "norm_after": -0.0}}'
    )
