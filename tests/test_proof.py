"""The evidence of a cause, as a person reads it."""

from __future__ import annotations

import re

import pytest

from gradwatch.proof import plainly, proof


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        ({"operation": "ReluBackward0", "share": 1.0, "dead_units": 4, "units": 4}, "operation Relu, 4 of 4 units dead"),
        ({"dead_units": 1, "units": 1}, "1 of 1 unit dead"),
        ({"calls": 0, "calls_of_enclosing_modules": 3}, "never called"),
        ({"calls": 1, "in_graph_of_loss": 0}, "called 1 time, never in the graph of the loss"),
        ({"backward_passes": 1, "missing": 1}, "1 backward pass, 1 gradient missing"),
        ({"passes_that_reached_none_of_it": 2, "backward_passes": 0}, "2 backward passes reached none of it"),
        ({"share_below": 1.0, "share_above": 0.0}, "all below the lower limit"),
        ({"share_below": 0.25, "share_above": 0.75}, "25 % below the lower limit, 75 % above the upper limit"),
        ({"norm_before": 0.127, "norm_after": "missing"}, "norm 0.127 after backward, missing at the step"),
        ({"input_min": -2.0, "input_max": 3.0}, "input from -2 to 3"),
        ({"share": 0.9999, "norm": 7.0, "silent": "mlp", "silent_norm": 0.0},
         "100 % of the squared norm, while mlp is silent, norm 7"),
        ({"something_new": 3, "reason": "said elsewhere"}, "something new 3"),
    ],
)  # fmt: skip
def test_numbers_have_names_and_units(evidence: dict[str, float | int | str], said: str) -> None:
    assert ", ".join(proof(evidence)) == said


def test_where_a_gradient_was_is_not_said_in_the_words_of_clipping() -> None:
    assert list(proof({"largest_incoming": 0.5, "elements": 16})) == [
        "largest gradient going in 0.5",
        "16 elements",
    ]
    both = {"largest_incoming": 0.5, "largest_outgoing": 2.0}
    assert list(proof(both)) == ["largest gradient going in 0.5, coming out 2"]


def test_at_most_two_numbers_and_the_most_telling_first() -> None:
    evidence = {
        "largest_incoming": 0.052,
        "elements": 16,
        "loss": 1.5,
        "units": 8,
        "dead_units": 8,
        "behind": "mlp",
    }
    said = list(proof(evidence))
    assert said == ["8 of 8 units dead", "fed by mlp"]
    assert len(re.findall(r"\d+", ", ".join(said))) == 2


def test_an_operation_is_called_by_its_own_name_and_the_place_is_not_said_twice() -> None:
    assert plainly("torch::autograd::CopySlices") == "CopySlices"
    assert list(proof({"operation": "ClampBackward1", "loss": 1.0}, "ClampBackward1")) == ["loss 1"]
