"""Numbers that leave the range of their type, told apart from what is not finite for another reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradwatch.diagnose import Diagnosis
from gradwatch.records import Cause

Loss = Callable[[Tensor], Tensor]


def cause_of(loss: Loss, weight: float = 1.0, dtype: torch.dtype = torch.float32) -> Cause:
    net = nn.Linear(2, 2, bias=False).to(dtype)
    nn.init.constant_(net.weight, weight)
    with Diagnosis({"net": net}) as diagnosis:
        loss(net(torch.ones(3, 2, dtype=dtype))).backward()
    return diagnosis.causes["net.weight"]


def squared(out: Tensor) -> Tensor:
    return functional.mse_loss(out, torch.zeros_like(out)).square()


@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        (squared, 1e30),
        (lambda out: (out @ out.T).square().mean(), 1e30),
        (lambda out: (out * 3e38 * 3e38).sum(), 1e-43),
    ],
    ids=["forward, a loss", "forward, a product", "backward"],
)
def test_in_float32_numbers_have_grown_and_no_cast_is_spoken_of(loss: Loss, weight: float) -> None:
    found = cause_of(loss, weight)
    assert found.kind == "nonfinite-op"
    assert found.evidence["dtype"] == "float32"
    assert found.evidence["largest_of_type"] == torch.finfo(torch.float32).max
    assert "learning rate" in found.remedy
    assert not any(word in found.remedy for word in ("cast", "float16", "float32", "epsilon"))


def test_in_float16_a_wider_type_helps() -> None:
    found = cause_of(lambda out: out.half().float().square().mean(), 1e6)
    assert found.evidence["dtype"] == "float16"
    assert found.remedy.startswith("Keep this in bfloat16 or float32")


def test_what_a_pole_did_is_no_overflow() -> None:
    assert "largest_of_type" not in cause_of(lambda out: (out - out).log().mean()).evidence


def test_what_is_not_known_of_an_operation_is_no_proof_that_data_did_it() -> None:
    """Nobody saves what it made: it has overflowed, or a NaN was added to it, which a sum does not save."""
    found = cause_of(lambda out: (torch.special.i0(out * 1e3) + out).mean())
    assert found.kind == "unknown"
    assert found.evidence["operation"] == "I0Backward0"


@pytest.mark.parametrize("activation", [functional.relu, functional.leaky_relu])
def test_the_slope_of_a_slope_passes_on_what_came_to_it(activation: Loss) -> None:
    def penalty(out: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(activation(out).sum() * torch.nan, out, create_graph=True)
        return (out * slope).mean()

    assert cause_of(penalty).kind == "nonfinite-loss"


@pytest.mark.parametrize(("dtype", "wide"), [(torch.float32, True), (torch.float16, False)])
def test_weights_that_are_not_finite_and_gradients_that_are_lost_have_a_remedy_for_their_type(
    dtype: torch.dtype, wide: bool
) -> None:
    gone = cause_of(lambda out: out.float().square().mean(), float("inf"), dtype)
    assert gone.kind == "nonfinite-weights"
    assert ("float" not in gone.remedy) == wide
    tiny = torch.finfo(dtype).tiny
    lost = cause_of(lambda out: (out * tiny * tiny).sum(), 1.0, dtype)
    assert lost.kind == "underflow"
    assert ("bfloat16" not in lost.remedy) == wide
