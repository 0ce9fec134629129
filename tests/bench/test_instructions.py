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


on_the_same = pytest.mark.skipif(on_what() != written_on(), reason=f"the figures are those of {written_on()}")


@on_the_same
def test_a_step_takes_no_more_instructions() -> None:
    try:
        instructions = instructions_added()
    except CannotCountError as why:
        pytest.skip(f"no instructions are counted here: {why}")
    figure = written("instructions")
    print(f"{instructions:,.0f} instructions added to a step, {figure:,.0f} written down")
    assert instructions <= RISE * figure, RENEW


@on_the_same
def test_a_step_makes_no_more_calls() -> None:
    """The same number in each run. With another torch comes another numpy: 1.23 calls twice in Python for a call."""
    assert calls_of_a_tiny_step() <= written("calls"), RENEW


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
