"""Each law is broken on purpose, and kept beside it."""

import math

import pytest

from gradwatch.audit import audit
from tests.audit.logs import write

BEFORE, AFTER = "run/grad_norm_before_clip", "run/grad_norm_after_clip"
TOTAL, ONE, TWO = "grad_norm_total", "grad_norm/one", "grad_norm/two"
KEPT = {BEFORE: [5.0, 0.5], AFTER: [1.0, 0.5]}

# Curves, the law, at how many of how many steps, and words of the sentence.
BROKEN = [
    ({"grad_norm": [1.0, -1.0, 2.0]}, "not-negative", (1, 3), "grad_norm is negative"),
    ({BEFORE: [5.0, 0.5], AFTER: [1.0, 0.6]}, "clip-lowers", (1, 2), "0.6 against 0.5 at step 2 (1.2x)"),
    ({**KEPT, "run/max_norm": [0.8, 0.8]}, "within-limit", (1, 2), "1 against 0.8 at step 1"),
    ({**KEPT, "run/grad_clip_ratio": [0.2, 0.5]}, "ratio", (1, 2), "0.5 against 1 at step 2"),
    ({TOTAL: [2.0, 2.0], ONE: [1.9, 3.8]}, "part-below-whole", (1, 2), "3.8 against 2 at step 2 (1.9x)"),
    ({AFTER: [1.0, 3.0], f"{AFTER}_SUM_OF_NORMS": [1.7, 2.0]}, "sum-above-norm", (1, 2), "2 against 3 at step 2"),
    (
        {TOTAL: [2.0, 7.0], ONE: [1.0, 3.0], TWO: [1.0, 4.0]},
        "root-of-squares",
        (2, 2),
        "too high by 1.41x at step 1",
    ),
    # When the parts were measured is not said, and does not matter to a plain sum.
    (
        {"grad_norm/before": [2.0, 7.0], "grad_norm/after": [0.5, 0.5], ONE: [1.0, 3.0], TWO: [1.0, 4.0]},
        "root-of-squares",
        (2, 2),
        "grad_norm/before is the sum of its parts' norms",
    ),
    ({TOTAL: [5.0, 4.5], ONE: [3.0, 3.0], TWO: [4.0, 4.0]}, "root-of-squares", (1, 2), "4.5 against 5 at step 2"),
]
HELD = [
    {**KEPT, "run/max_norm": [1.0, 1.0], "run/grad_clip_ratio": [0.2, 1.0]},
    # torch's own clip divides by the norm and 1e-6, in float32.
    {BEFORE: [1e-5], AFTER: [9e-6], "run/grad_clip_ratio": [9e-6 / 1.1e-5]},
    {TOTAL: [5.0, 6.0], ONE: [3.0, 3.0], TWO: [4.0, 4.0]},
    {TOTAL: [3.0], ONE: [3.0], TWO: [0.0]},
    {BEFORE: [math.nan, math.inf], AFTER: [math.nan, math.nan]},
    # Rounded in float32 by torch, and no limit: it changes.
    {BEFORE: [1.0], AFTER: [1.019]},
    {**KEPT, "run/max_grad_norm": [0.8, 0.7]},
    # An exploration and a statistic of many steps are no norms of a part.
    {"grad_norm": [1.0], "grad_norm/mean": [2.0], "grad_inf_norm/layer": [7.0], "train/clip_ratio": [0.3]},
    {**KEPT, "run/clip_ratio": [0.3, 0.3]},
    # Each has a limit of its own: the second is no part of the first.
    {
        **KEPT,
        "run_cnn/grad_norm_after_clip": [9.0, 9.0],
        "run_cnn/max_norm": [9.0, 9.0],
        "run/max_norm": [1.0, 1.0],
    },
    # Nobody says that these are parts of each other.
    {"grad_norm/layer1": [1.0], "grad_norm/layer1_bn": [2.0]},
]


@pytest.mark.parametrize(
    ("curves", "law", "steps", "words"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_law_that_is_broken_is_told(curves, law, steps, words, tmp_path):
    (found,) = audit(write(tmp_path, curves))
    (breach,) = found.breaches
    assert (breach.law, (breach.steps, breach.of)) == (law, steps)
    assert words in breach.message


@pytest.mark.parametrize("curves", HELD, ids=lambda curves: next(iter(curves)))
def test_what_may_be_is_not_told(curves, tmp_path):
    (found,) = audit(write(tmp_path, curves))
    assert found.breaches == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ([1.0, 1.0], "no name says that a clip lies between."),
        ([1.0, 400.0], "after is above before in 1 of 2 steps, 400 against 1.6 at step 2, which no clip does."),
    ],
)
def test_a_pair_that_is_not_compared_is_told(after, words, tmp_path):
    (found,) = audit(write(tmp_path, {"grad_norm/before": [1.4, 1.6], "grad_norm/after": after}))
    assert not found.breaches
    said = found.remarks[0]
    assert said.startswith("grad_norm/after is not held against grad_norm/before: ")
    assert said.endswith(words)


def test_the_worst_comes_first(tmp_path):
    (found,) = audit(write(tmp_path, {TOTAL: [1.0], ONE: [2.0], TWO: [9.0], "a/grad_norm": [-1.0]}))
    assert [breach.factor for breach in found.breaches] == [math.inf, 9.0, 2.0]


def test_a_file_that_goes_back_holds_two_runs(tmp_path):
    (found,) = audit(write(tmp_path, {"grad_norm": [1.0, 2.0, 3.0]}, steps=[1, 2, 1]))
    (breach,) = found.breaches
    assert breach.law == "in-order"
    assert "goes back to step 1" in breach.message


def test_a_run_that_is_resumed_goes_back_in_a_new_file(tmp_path):
    write(tmp_path, {"grad_norm": [1.0, 2.0, 2.5]}, steps=[1, 2, 3])
    (found,) = audit(write(tmp_path, {"grad_norm": [3.0, 4.0]}, steps=[2, 3]))
    assert (found.breaches, found.steps) == ([], 3)
