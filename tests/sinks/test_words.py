import pytest

from gradwatch.records import Cause
from gradwatch.sinks.words import in_words
from tests.made_up import alert


@pytest.mark.parametrize(
    ("state", "start"),
    [
        ("firing", "! CRITICAL zero at actor/mlp, step 1: "),
        ("explained", "? explained zero at actor/mlp, step 1: "),
        ("resolved", "+ resolved zero at actor/mlp, step 1: "),
    ],
)
def test_state_severity_rule_and_place_come_first(state, start):
    assert in_words(alert(state)).startswith(start)


def test_an_alert_on_the_optimizer_names_no_module():
    assert " at actor, step 1" in in_words(alert(module=None))


def test_the_cause_and_its_remedy_end_it():
    cause = Cause("saturated-tanh", "mlp.2", {"share": 0.99}, "Lower the learning rate.")
    for state in ("firing", "explained"):
        said = in_words(alert(state, cause=cause))
        assert said.endswith(" Cause: saturated-tanh at mlp.2 (share 0.99). Lower the learning rate.")


def test_a_cause_without_numbers_has_no_brackets():
    cause = Cause("no-backward", "mlp", {}, "Call backward().")
    assert in_words(alert(cause=cause)).endswith(" Cause: no-backward at mlp. Call backward().")


def test_numbers_are_short_and_names_are_words():
    cause = Cause(
        "shortcut", "cnn", {"silent_norm": 0.0, "share": 0.99999999, "units": 12, "by": "mlp"}, "Cut it."
    )
    assert "(silent norm 0, share 1, units 12, by mlp)" in in_words(alert(cause=cause))


def test_what_is_over_needs_no_remedy():
    cause = Cause("saturated-tanh", "mlp.2", {"share": 0.99}, "Lower the learning rate.")
    assert "Cause" not in in_words(alert("resolved", cause=cause))
