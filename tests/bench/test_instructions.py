"""A tracked step takes no more instructions and no more calls than are written down in ``instructions.json``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.bench.calls import calls_added, calls_of_a_tiny_step
from tests.bench.figures import RENEW, on_what, written, written_on
from tests.bench.instructions import CannotCountError, instructions_added
from tests.bench.isolated import Isolated, tiny_mlp

RISE = 1.10


def test_a_step_takes_no_more_instructions() -> None:
    if on_what() != written_on():
        pytest.skip(f"the instructions written down are those of {written_on()}")
    try:
        instructions = instructions_added()
    except CannotCountError as why:
        pytest.skip(f"no instructions are counted here: {why}")
    figure = written("instructions")
    print(f"{instructions:,.0f} instructions added to a step, {figure:,.0f} written down")
    assert instructions <= RISE * figure, RENEW


def test_a_step_makes_no_more_calls() -> None:
    """The same number in each run; another Python or torch may make a few more."""
    same = on_what() == written_on()
    assert calls_of_a_tiny_step() <= written("calls") * (1 if same else RISE), RENEW


def dead_policy(parameter: Tensor) -> Tensor:
    """The last layer, of 6 outputs, gets exactly 0."""
    return torch.zeros_like(parameter) if len(parameter) == 6 else torch.randn_like(parameter)


@pytest.mark.parametrize(
    "made", [{}, {"limit": 1e-3, "gradients": dead_policy}], ids=["healthy", "a dead layer, clipping saturated"]
)
def test_a_late_step_makes_as_many_calls_as_an_early_one(made: dict[str, object]) -> None:
    early = calls_added(Isolated(tiny_mlp(), **made))
    late = calls_added(Isolated(tiny_mlp(), **made), after=1024)
    assert late <= 1.02 * early
