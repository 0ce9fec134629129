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
    assert in_words(alert(cause=cause)).endswith(" Cause: saturated-tanh at mlp.2. Lower the learning rate.")
